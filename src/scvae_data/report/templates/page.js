const unpacked = async (name) => {
  // A data address is decoded by the browser itself, and goes nowhere.
  const packed = await fetch(`data:;base64,${document.getElementById(`packed-${name}`).textContent}`);
  return new Response(packed.body.pipeThrough(new DecompressionStream("deflate"))).text();
};
const library = async (name) => {
  const url = URL.createObjectURL(new Blob([await unpacked(name)], { type: "text/javascript" }));
  try { return await import(url); } finally { URL.revokeObjectURL(url); }
};

// Colours of text and lines are those of the page, so that charts follow light, dark and paper without being redrawn.
const ink = "currentColor";
const config = {
  background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
  axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink, gridColor: "#88888844", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
  legend: { labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, orient: "top", symbolStrokeWidth: 2, layout: { top: { anchor: "start", direction: "vertical" } } },
  title: { color: ink }, text: { color: ink }, rule: { color: ink },
};
const draw = (figure, spec) => window.vegaEmbed(figure.querySelector(".plot"), spec, { mode: "vega-lite", actions: false, renderer: "svg", config });

const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const shown = (column, pick) => {
  const format = new Intl.NumberFormat("en", { minimumFractionDigits: column.digits ?? 0, maximumFractionDigits: column.digits ?? 0 });
  return (value, kind, row) => {
    const link = column.links !== null && kind === "display" ? column.links[row[row.length - 1]] : null;
    if (link) return `<a href="${escaped(link)}">${escaped(value)}</a>`;
    if (pick && kind === "display") return `<button type="button" class="pick">${escaped(value)}</button>`;
    if (kind !== "display") return value === null ? (column.digits === null ? "" : -Infinity) : Array.isArray(value) ? value.join(" ") : value;
    if (value === null) return "";
    if (Array.isArray(value)) return value.map((name) => `<span class="flag">${escaped(name)}</span>`).join(" ");
    return column.digits === null ? escaped(value) : format.format(value);
  };
};
const rowsOf = (columns) => Object.values(columns)[0].map((_, row) => Object.fromEntries(Object.keys(columns).map((name) => [name, columns[name][row]])));
const tabulate = (DataTable, element, table, charts) => {
  const rows = table.columns[0].values.map((_, row) => [...table.columns.map((column) => column.values[row]), row]);
  const columns = table.columns.map((column, number) => ({ title: `<span title="${escaped(column.about)}">${escaped(column.title)}</span>`, render: shown(column, table.details !== null && number === 0), type: column.digits === null ? "string" : "num", className: column.digits !== null ? "dt-right" : column.values.some((value) => typeof value === "string" && value.length > 24) ? "long" : "" }));
  const many = rows.length > 15;
  const grid = new DataTable(element, { data: rows, columns: [...columns, { visible: false, searchable: false }], deferRender: true, autoWidth: false, pageLength: 15, lengthMenu: [15, 50, 250], paging: many, searching: many, info: many, order: table.order === null ? [] : [[table.order, "desc"]], language: { search: "Filter:", lengthMenu: "_MENU_ rows a page" } });
  // Each list of pages is a landmark: its name says of which table.
  const name = () => element.closest(".dt-container").querySelectorAll("nav").forEach((nav) => nav.setAttribute("aria-label", `Pages of ${element.getAttribute("aria-label")}`));
  grid.on("draw", name);
  name();
  if (table.details === null) return;
  // Columns that do not fit are not shown: all are told of the row that is chosen.
  const box = element.closest(".scroll");
  const fit = () => {
    for (let at = 0; at < columns.length; at++) grid.column(at).visible(true, false);
    for (let at = columns.length - 1; at > 0 && element.offsetWidth > box.clientWidth; at--) grid.column(at).visible(false, false);
  };
  grid.on("draw", fit);
  addEventListener("resize", fit);
  fit();
  const facts = document.querySelector(`[data-facts="${element.dataset.table}"]`);
  const figure = document.querySelector(`[data-chart="${table.detail_chart}"]`);
  const choose = (row) => {
    const number = row[row.length - 1];
    figure.querySelector(".chosen").textContent = row[0];
    facts.innerHTML = table.columns.map((column, at) => [column.title, shown(column, false)(row[at], "display", row)]).filter(([, text]) => text !== "").map(([title, text]) => `<div><dt>${escaped(title)}</dt><dd>${text}</dd></div>`).join("");
    const detail = table.details[number];
    figure.querySelector(".none").hidden = detail !== null;
    figure.querySelector(".plot").hidden = detail === null;
    if (detail === null) return;
    const chart = charts[table.detail_chart];
    const datasets = Object.fromEntries(Object.entries(detail).map(([name, columns]) => [name, rowsOf(columns)]));
    draw(figure, { ...chart, layer: chart.layer.filter((layer) => datasets[layer.data.name].length), datasets });
  };
  element.addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    const row = line && grid.row(line).data();
    if (row) choose(row);
  });
  const first = grid.rows({ order: "applied" }).data()[0];
  if (first) choose(first);
};

const data = JSON.parse(await unpacked("data"));
const figures = [...document.querySelectorAll("[data-chart]")];
if (figures.length) await library("vega");
// Tables first: they are what a page of many rows is opened for.
if (Object.keys(data.tables).length) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark", dark.matches);
  dark.addEventListener("change", follow);
  follow();
  const { default: DataTable } = await library("tables");
  for (const element of document.querySelectorAll("[data-table]")) tabulate(DataTable, element, data.tables[element.dataset.table], data.charts);
}
const detailed = new Set(Object.values(data.tables).map((table) => table.detail_chart));
for (const figure of figures)
  if (!detailed.has(figure.dataset.chart)) await draw(figure, data.charts[figure.dataset.chart]);
document.documentElement.dataset.ready = "true";
