"""Does it work here, on these data? ``python test_chunked_system.py [DIR | FILE …]``; ``--help`` says more."""

if __name__ == "__main__":  # pytest, which collects files of this name, finds no test in it
    import sys

    from scvae_data.commands.check import main

    sys.exit(main(sys.argv[1:]))
