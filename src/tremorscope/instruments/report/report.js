// Draws the figures and works the buttons. Every number comes from the page itself; nothing is fetched.
(function () {
  "use strict";

  const root = document.documentElement;
  root.classList.add("scripted");

  const palette = JSON.parse(document.getElementById("palette").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const figures = Array.from(document.querySelectorAll("figure.figure"));
  const PRINT_WIDTH = 660; // CSS pixels that fit between the margins of A4 and of Letter

  function variable(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  // Traces name colours of the light palette; on a dark page each becomes its lighter sibling.
  function recoloured(value, isDark) {
    if (!isDark) return value;
    if (typeof value === "string") {
      const place = palette.light.indexOf(value.toUpperCase());
      return place < 0 ? value : palette.dark[place];
    }
    if (Array.isArray(value)) {
      return typeof value[0] === "number" ? value : value.map((entry) => recoloured(entry, isDark));
    }
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, recoloured(entry, isDark)]));
    }
    return value;
  }

  function template(isDark) {
    const ink = variable("--ink"), soft = variable("--soft"), grid = variable("--grid");
    const rule = variable("--rule"), paper = variable("--paper");
    const axis = {
      automargin: true, gridcolor: grid, gridwidth: 1, linecolor: rule, linewidth: 1, showline: true,
      zeroline: false, ticks: "outside", ticklen: 4, tickcolor: rule, tickfont: { size: 12, color: soft },
      title: { font: { size: 13, color: ink }, standoff: 10 }, minor: { showgrid: false },
    };
    const space = {
      gridcolor: grid, linecolor: rule, zeroline: false, showbackground: false, tickfont: { size: 11, color: soft },
      title: { font: { size: 12, color: ink } },
    };
    const bar = { outlinewidth: 0, thickness: 12, ticks: "outside", ticklen: 3, tickcolor: rule,
                  tickfont: { size: 12, color: soft } };
    return {
      layout: {
        colorway: isDark ? palette.dark : palette.light,
        font: { family: variable("--sans"), size: 13, color: ink },
        paper_bgcolor: paper, plot_bgcolor: paper,
        margin: { l: 56, r: 20, t: 24, b: 48, pad: 0 },
        xaxis: axis, yaxis: axis,
        scene: { xaxis: space, yaxis: space, zaxis: space },
        coloraxis: { colorbar: bar },
        legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom",
                  font: { size: 12.5, color: ink }, bgcolor: "rgba(0,0,0,0)", itemwidth: 30 },
        hoverlabel: { bgcolor: variable("--raised"), bordercolor: rule,
                      font: { family: variable("--sans"), size: 12.5, color: ink }, align: "left", namelength: 40 },
        hovermode: "closest",
        modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink, orientation: "v" },
        annotationdefaults: { font: { size: 12, color: soft }, arrowcolor: soft, arrowwidth: 1, arrowhead: 0 },
        shapedefaults: { line: { color: soft, width: 1 } },
        colorscale: { sequential: "Viridis", diverging: "RdBu" },
      },
      data: { heatmap: [{ colorbar: bar }], contour: [{ colorbar: bar }], surface: [{ colorbar: bar }] },
    };
  }

  // On a log axis Plotly writes powers a quarter larger than other labels, and 2s and 5s between them, which only
  // an axis of little more than one decade needs.
  function logAxes(layout, data) {
    const axes = {};
    ["x", "y"].forEach((letter) => {
      const axis = layout[letter + "axis"];
      if (!axis || axis.type !== "log") return;
      const logs = axis.range ? axis.range
        : data.flatMap((trace) => trace[letter] || []).filter((value) => value > 0).map(Math.log10);
      const span = logs.reduce((a, b) => Math.max(a, b), -Infinity) - logs.reduce((a, b) => Math.min(a, b), Infinity);
      axes[letter + "axis"] = span < 1.5 ? axis : { minorloglabels: "none", tickfont: { size: 10, color: variable("--soft") }, ...axis };
    });
    return axes;
  }

  // --- drawing ---------------------------------------------------------------------------------------------

  function spec(figure) {
    figure.spec = figure.spec || JSON.parse(figure.querySelector("script").textContent);
    return figure.spec;
  }

  // The library's menus are worked by mouse only, and lie over the legend in a narrow window. One that only changes
  // traces becomes a menu of the page, which a keyboard works too.
  function choices(figure) {
    const menus = spec(figure).layout.updatemenus || [];
    const buttons = menus.length === 1 ? menus[0].buttons || [] : [];
    const isPlain = (button) => button.method === "restyle" && Object.keys(button.args[0]).every((key) => !key.includes("."));
    return buttons.length && buttons.every(isPlain) ? buttons : [];
  }

  function traces(figure, place) {
    const { data } = spec(figure);
    const button = choices(figure)[place];
    if (!button) return data;
    const [change, places] = button.args;
    return data.map((trace, i) => {
      const own = places ? places.indexOf(i) : i;
      if (own < 0) return trace;
      const changed = Object.entries(change).map(([key, value]) => [key, Array.isArray(value) ? value[own % value.length] : value]);
      return { ...trace, ...Object.fromEntries(changed) };
    });
  }

  function addMenu(figure, plot) {
    const buttons = choices(figure);
    if (!buttons.length || figure.chosen !== undefined) return;
    figure.chosen = spec(figure).layout.updatemenus[0].active || 0;
    const menu = document.createElement("select");
    menu.className = "choice";
    menu.setAttribute("aria-label", "Shown in " + figure.querySelector(".heading").textContent);
    buttons.forEach((button, place) => menu.add(new Option(button.label, place, false, place === figure.chosen)));
    menu.addEventListener("change", () => { figure.chosen = Number(menu.value); draw(figure, false); });
    plot.before(menu);
  }

  function draw(figure, printing) {
    const plot = figure.querySelector(".plot");
    addMenu(figure, plot);
    const data = traces(figure, figure.chosen);
    const layout = choices(figure).length ? { ...spec(figure).layout, updatemenus: [] } : spec(figure).layout;
    const isDark = dark.matches && !printing;
    const isNarrow = window.innerWidth < 600;
    // There a legend has one entry in each line, and would leave no room for the drawing.
    const named = data.filter((trace) => trace.name && trace.visible !== false && trace.showlegend !== false);
    const lines = isNarrow && layout.showlegend !== false && named.length > 2 ? named.length - 2 : 0;
    const height = (layout.height || (isNarrow ? 340 : 430)) + 19 * lines;
    if (!figure.drawn) {
      plot.replaceChildren();
      plot.style.height = height + "px";
    }
    const fit = printing ? { autosize: false, width: PRINT_WIDTH, height: Math.min(height, 430) }
                         : { autosize: true, width: undefined, height: undefined };
    const whole = { ...recoloured({ ...layout, ...logAxes(layout, data) }, isDark), ...fit, template: template(isDark), uirevision: "kept " + figure.chosen };
    const config = {
      displaylogo: false, responsive: true, displayModeBar: "hover",
      showSendToCloud: false, plotlyServerURL: "", // the library offers to upload the data; this page does not
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: figure.dataset.name },
    };
    const finished = () => { figure.classList.add("drawn"); };
    const failed = (error) => {
      const note = document.createElement("p");
      note.className = "absent";
      note.textContent = "This figure could not be drawn: " + error.message;
      plot.replaceChildren(note);
      console.error(error);
    };
    figure.drawn = true;
    try {
      Plotly.react(plot, recoloured(data, isDark), whole, config).then(finished, failed);
    } catch (error) {
      failed(error);
    }
  }

  // What is in view is drawn at once, the rest one by one when the browser has time: a page that was never
  // scrolled is complete too, for printing and for saving.
  const waiting = new Set(figures);
  function drawIfWaiting(figure) {
    if (!waiting.delete(figure)) return;
    viewer.unobserve(figure);
    draw(figure, false);
  }
  const viewer = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawIfWaiting(entry.target));
  }, { rootMargin: "300px" });
  const later = window.requestIdleCallback || ((work) => setTimeout(work, 60));
  function drawNext() {
    const next = waiting.values().next().value;
    if (next === undefined) return;
    drawIfWaiting(next);
    later(drawNext);
  }
  figures.forEach((figure) => viewer.observe(figure));
  later(drawNext);

  dark.addEventListener("change", () => figures.filter((figure) => figure.drawn).forEach((each) => draw(each, false)));

  const openedForPrint = [];
  window.addEventListener("beforeprint", () => {
    root.classList.add("printing"); // light colours while the template reads them
    figures.forEach((figure) => { waiting.delete(figure); draw(figure, true); });
    document.querySelectorAll("details:not([open])").forEach((each) => { each.open = true; openedForPrint.push(each); });
  });
  window.addEventListener("afterprint", () => {
    root.classList.remove("printing");
    figures.forEach((figure) => draw(figure, false));
    openedForPrint.splice(0).forEach((each) => { each.open = false; });
  });

  // --- full screen -----------------------------------------------------------------------------------------

  function fit(figure) {
    const plot = figure.querySelector(".plot");
    if (figure.drawn) requestAnimationFrame(() => Plotly.Plots.resize(plot));
  }

  function leaveOverlay(figure) {
    figure.classList.remove("whole");
    label(figure, false);
    fit(figure);
  }

  function label(figure, isFull) {
    figure.querySelector('[data-action="full"]').textContent = isFull ? "Close" : "Full screen";
  }

  function toggleFull(figure) {
    if (document.fullscreenElement) return document.exitFullscreen();
    if (figure.classList.contains("whole")) return leaveOverlay(figure);
    const overlay = () => { figure.classList.add("whole"); label(figure, true); fit(figure); };
    // Embedded pages may be denied the real full screen; they get an overlay.
    if (!document.fullscreenEnabled) return overlay();
    return figure.requestFullscreen().catch(overlay);
  }

  document.addEventListener("fullscreenchange", () => {
    figures.forEach((figure) => { label(figure, figure === document.fullscreenElement); fit(figure); });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll("figure.whole").forEach(leaveOverlay);
  });

  // --- data, command, rows ---------------------------------------------------------------------------------

  function quoted(cell) {
    const text = cell === null || cell === undefined ? "" : String(cell);
    return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  // Long format: one line per point, one column per array that any trace has; a matrix `z` is unrolled.
  function csv(figure) {
    const points = [];
    const buttons = choices(figure);
    const views = buttons.length ? buttons.map((button, place) => [{ shown: button.label }, traces(figure, place)])
      : [[{}, spec(figure).data]];
    views.forEach(([view, data]) => data.forEach((trace, place) => {
      if (buttons.length && trace.visible === false) return;
      const name = trace.name === undefined ? "trace " + (place + 1) : trace.name;
      if (Array.isArray(trace.z) && Array.isArray(trace.z[0])) {
        trace.z.forEach((row, i) => row.forEach((z, j) => points.push({
          ...view, trace: name, x: trace.x ? trace.x[j] : j, y: trace.y ? trace.y[i] : i, z,
        })));
        return;
      }
      const columns = Object.entries(trace).filter(([key, value]) => Array.isArray(value) && key !== "customdata");
      ["x", "y"].forEach((axis) => {
        const error = trace["error_" + axis];
        if (!error) return;
        if (Array.isArray(error.array)) columns.push([axis + "_above", error.array]);
        if (Array.isArray(error.arrayminus)) columns.push([axis + "_below", error.arrayminus]);
      });
      const length = Math.max(0, ...columns.map(([, value]) => value.length));
      for (let i = 0; i < length; i += 1) {
        points.push(Object.fromEntries([...Object.entries(view), ["trace", name], ...columns.map(([key, value]) => [key, value[i]])]));
      }
    }));
    const header = Array.from(new Set(points.flatMap((point) => Object.keys(point))));
    return [header, ...points.map((point) => header.map((key) => point[key]))]
      .map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  }

  function download(text, filename) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = filename;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function say(text) {
    document.getElementById("announcement").textContent = text;
  }

  // Where there is no clipboard without permission, an unseen field is selected and copied as the browser does it.
  function copiedByHand(text) {
    const field = document.createElement("textarea");
    field.value = text;
    field.readOnly = true;
    field.className = "spoken";
    document.body.append(field);
    field.select();
    let isCopied = false;
    try { isCopied = document.execCommand("copy"); } catch (error) { isCopied = false; }
    field.remove();
    return isCopied;
  }

  function copy(button) {
    const place = button.closest("td, .command");
    const code = place.querySelector("code");
    button.dataset.label = button.dataset.label || button.textContent;
    const show = (text, told) => {
      button.textContent = text;
      say(told);
      clearTimeout(button.waiting);
      button.waiting = setTimeout(() => { button.textContent = button.dataset.label; }, 2000);
    };
    const done = () => show("Copied", "Copied to the clipboard.");
    const byHand = () => {
      if (copiedByHand(code.textContent)) { button.focus(); return done(); }
      const details = place.querySelector("details");
      if (details) details.open = true;
      getSelection().selectAllChildren(code); // one key is left to the reader
      return show("Press Ctrl+C", "The text is selected: press Control and C to copy it.");
    };
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, byHand); else byHand();
  }

  function toggleRows(button, isOpen) {
    button.closest("section").querySelector("table").classList.toggle("short", !isOpen);
    button.setAttribute("aria-expanded", String(isOpen));
    button.textContent = isOpen ? button.dataset.less : button.dataset.more;
  }
  document.querySelectorAll('[data-action="rows"]').forEach((button) => toggleRows(button, false));

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    if (!button) return;
    const figure = button.closest("figure");
    switch (button.dataset.action) {
      case "csv": download(csv(figure), figure.dataset.name + ".csv"); break;
      case "full": toggleFull(figure); break;
      case "copy": copy(button); break;
      case "rows": toggleRows(button, button.getAttribute("aria-expanded") === "false"); break;
    }
  });

  // A link to a claim opens its details.
  function openTarget() {
    const row = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    const details = row && row.matches("tr") ? row.querySelector("details") : null;
    if (details) details.open = true;
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();

  // --- the place in the contents -----------------------------------------------------------------------------

  const links = Array.from(document.querySelectorAll(".contents li a"));
  const places = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  let isMarked = false;
  function markPlace() {
    isMarked = false;
    const line = window.innerHeight * 0.3;
    const atEnd = window.scrollY > 0 && window.innerHeight + window.scrollY >= root.scrollHeight - 4;
    let current = atEnd ? links.length - 1 : -1;
    if (!atEnd) places.forEach((place, i) => { if (place && place.getBoundingClientRect().top < line) current = i; });
    links.forEach((link, i) => {
      if (i === current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    });
  }
  window.addEventListener("scroll", () => {
    if (isMarked) return;
    isMarked = true;
    requestAnimationFrame(markPlace);
  }, { passive: true });
  markPlace();
})();
