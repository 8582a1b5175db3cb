// The form of the page: native fields from what Python says of them; what is filled in goes back, a field at a time.
const PAUSE_ms = 60; // between two answers that are asked for while a slider moves

export function render({ model, el }) {
  const form = document.createElement("form");
  form.setAttribute("aria-label", "What is asked");
  form.addEventListener("submit", (event) => event.preventDefault());
  el.append(form);
  let waiting = {}, timer = null, turn = 0;

  function send(name, value, now) {
    waiting[name] = value;
    if (timer !== null && !now) return;
    const go = () => {
      timer = null;
      if (!Object.keys(waiting).length) return;
      turn += 1;
      model.send_msg({ turn, values: waiting });
      waiting = {};
      timer = setTimeout(go, PAUSE_ms);
    };
    clearTimeout(timer);
    go();
  }

  function summary(group) {
    return group.fields.filter((f) => f.look !== "text").map((f) => {
      const said = f.values.map((v, i) => [v, f.shown[i]]);
      const of = (v) => (said.find(([one]) => one === v) || [v, String(v)])[1];
      return Array.isArray(f.value) ? f.value.map(of).join(", ") : of(f.value);
    }).join(" · ");
  }

  function make(tag, into, attributes = {}, text = "") {
    const one = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text) one.textContent = text;
    into.append(one);
    return one;
  }

  function checks(field, into, changed) {
    const set = make("fieldset", into, { class: "checks" });
    make("legend", set, {}, field.label);
    const list = make("div", set, { class: "list" });
    for (const value of field.values) {
      const label = make("label", list);
      const box = make("input", label, { type: "checkbox", value });
      box.checked = field.value.includes(value);
      label.append(value);
      box.addEventListener("change", () => changed(box.checked ? [...field.value, value] : field.value.filter((v) => v !== value)));
    }
    const first = list.querySelector("input:checked");
    if (first) queueMicrotask(() => { list.scrollTop = first.parentElement.offsetTop - list.offsetTop; });
  }

  function choice(field, into, changed) {
    const row = make("div", into, { class: "row" });
    make("label", row, { for: field.name }, field.label);
    const select = make("select", row, { id: field.name });
    field.values.forEach((value, at) => make("option", select, { value: at }, field.shown[at]));
    select.selectedIndex = field.values.indexOf(field.value);
    select.addEventListener("change", () => changed(field.values[select.selectedIndex]));
  }

  function slider(field, into, changed) {
    const row = make("div", into, { class: "row slide" });
    make("label", row, { for: field.name }, field.label);
    const out = make("output", row, { for: field.name });
    const range = make("input", row, { id: field.name, type: "range", min: 0, max: field.values.length - 1, step: 1 });
    const tell = () => {
      out.textContent = field.shown[range.value];
      range.setAttribute("aria-valuetext", field.shown[range.value]);
    };
    range.value = field.values.indexOf(field.value);
    tell();
    range.addEventListener("input", () => { tell(); changed(field.values[range.value]); });
  }

  function text(field, into, changed) {
    const row = make("div", into, { class: "row wide" });
    make("label", row, { for: field.name }, field.label);
    make("p", row, { class: "soft", id: `${field.name}-how` }, "Any key of a scenario, a line each: workload.KEY: VALUE");
    const area = make("textarea", row, { id: field.name, rows: 4, spellcheck: "false", "aria-describedby": `${field.name}-how` });
    area.value = field.value || "";
    area.addEventListener("change", () => changed(area.value));
  }

  const looks = { checks, choice, slider, text };

  function build() {
    const open = Object.fromEntries([...form.querySelectorAll("details")].map((one) => [one.id, one.open]));
    const before = form.getRootNode().activeElement?.id;
    const narrow = window.matchMedia("(max-width: 800px)").matches;
    form.replaceChildren();
    for (const group of model.groups) {
      const shut = narrow && group.name !== "Load";
      const part = make("details", form, { id: group.name });
      part.open = open[group.name] ?? !shut;
      const head = make("summary", part);
      make("span", head, { class: "name" }, group.name);
      const told = make("span", head, { class: "soft" });
      const tell = () => { told.textContent = summary(group); };
      tell();
      for (const field of group.fields) {
        looks[field.look](field, part, (value) => { field.value = value; tell(); send(field.name, value, field.look !== "slider"); });
      }
    }
    const take = make("div", form, { class: "take", role: "group", "aria-label": "Take it with you" });
    for (const [what, label] of Object.entries(model.files)) {
      const button = make("button", take, { type: "button" }, label);
      button.addEventListener("click", () => model.send_msg({ file: what }));
    }
    if (before) form.querySelector(`[id="${before}"]`)?.focus();
  }

  function save() {
    const { name, kind, text: content } = model.file;
    if (!name) return;
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  model.on("groups", build);
  model.on("file", save);
  build();
}
