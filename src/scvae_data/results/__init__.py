"""What is made of a trained model: latents, decoded expression, tests, checks, files and a folder to hand on."""
