// The options, as controls made of what the server tells of its settings.

const element = (name, attributes = {}, ...inside) => {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...inside);
  return made;
};
const title = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");
const SIZES = ["scale", "height"];

export class Form {
  constructor(place, options) {
    this.place = place;
    this.options = options;
    this.inputs = new Map();
    this.model = element("select", { id: "model" }, ...options.models.map(({ name }, i) =>
      element("option", { value: name, textContent: i ? name : `${name} (default)` })));
    this.model.onchange = () => this.update();
    place.append(
      element("div", { className: "control" }, element("label", { className: "head", htmlFor: "model" }, "Model"), this.model),
      this.sizes(), ...options.controls.filter(({ name }) => !SIZES.includes(name)).map((control) => this.slider(control)));
    this.update();
  }

  // Scale or height, of which one can be asked.
  sizes() {
    const rows = this.options.controls.filter(({ name }) => SIZES.includes(name)).map((control, i) => {
      const input = Object.assign(this.number(control, "number"), { ariaLabel: title(control.name) });
      const radio = element("input", { type: "radio", name: "size", value: control.name, checked: !i, ariaLabel: `by ${control.name}` });
      input.onfocus = () => { radio.checked = true; this.update(); };
      radio.onchange = () => this.update();
      return element("label", {}, radio, `${title(control.name)} `, input);
    });
    this.result = element("output", {});
    const texts = this.options.controls.filter(({ name }) => SIZES.includes(name)).map(({ text }) => text);
    return element("fieldset", { className: "control" },
      element("legend", { className: "head" }, "Size", this.result),
      element("div", { className: "row" }, ...rows), this.help(texts.join(" ")));
  }

  slider(control) {
    const input = this.number(control, "range");
    const told = element("output", { htmlFor: input.id });
    input.told = () => { told.textContent = Number(input.value) === control.usual ? `${input.value} (default)` : input.value; };
    return element("div", { className: "control" },
      element("label", { className: "head", htmlFor: input.id }, title(control.name), told), input,
      element("div", { className: "ends" }, element("span", {}, control.ends[0]), element("span", {}, control.ends[1])),
      this.help(control.text));
  }

  number({ name, least, most, step, usual }, type) {
    const input = element("input", { type, id: `option-${name}`, min: least, max: most, step, value: usual });
    input.oninput = () => this.update();
    this.inputs.set(name, input);
    return input;
  }

  help(text) {
    const plain = text.replace(/`(\w+)`/g, "$1");
    return element("details", {}, element("summary", {}, "What is this?"), plain);
  }

  // Tells what follows from what was chosen.
  update() {
    for (const { name, models } of this.options.controls) {
      const input = this.inputs.get(name);
      input.told?.();
      if (!SIZES.includes(name)) input.closest(".control").hidden = !models.includes(this.model.value);
    }
    this.result.textContent = this.info ? `${this.size().join(" × ")}` : "";
  }

  about(info) {
    this.info = info;
    this.update();
  }

  get by() { return this.place.querySelector("input[name=size]:checked").value; }

  size() {
    const value = Number(this.inputs.get(this.by).value);
    const { width, height, kind } = this.info;
    const scale = this.by === "height" ? value / height : value;
    const step = kind === "image" ? 1 : 2; // videos have even sides
    return [width, height].map((side) => Math.max(1, Math.round((side * scale) / step)) * step);
  }

  // By name; what stands where it stood at first is left to the model.
  answers() {
    const found = { model: this.model.value };
    for (const { name, usual, models } of this.options.controls) {
      const value = Number(this.inputs.get(name).value);
      if (SIZES.includes(name) ? name === this.by : models.includes(found.model) && value !== usual) found[name] = value;
    }
    return found;
  }
}
