// Two versions of an image under a divider, with zoom; all of it by mouse and by keys.
const ZOOMS = [1, 2, 3, 4, 6, 8, 12, 16];
let viewers = 0;

// Long words, such as codebook.size=1024, may break after a sign.
const breakable = (text) => text.replace(/[.=_/,]/g, "$&\u200b");

function radio(group, isChecked, uri, label, choose) {
  const input = make("input", { type: "radio", class: "hidden", name: group, "aria-label": label.join(", "), onchange: choose });
  input.checked = isChecked;
  const image = make("img", { src: uri, alt: "" });
  return make("label", { title: label.join(", ") }, input, image, ...label.map((line) => make("span", {}, breakable(line), make("br"))));
}

class Viewer {
  constructor(place, spec) {
    this.spec = spec;
    this.group = `viewer-${(viewers += 1)}`;
    this.item = spec.items[0];
    this.right = spec.right;
    this.left = this.item.layers[0].name;
    this.split = 50;
    this.reset();
    this.images = [0, 1].map(() => make("img", { alt: "", draggable: "false" }));
    this.sides = this.images.map((image) => make("div", { class: "side" }, image));
    this.tags = ["left", "right"].map((side) => make("span", { class: `tag ${side}` }));
    this.divider = make("div", { class: "divider" });
    this.stage = make("div", { class: "stage", tabindex: 0, role: "img" }, ...this.sides, this.divider, ...this.tags);
    this.range = make("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": `${spec.label}: divider` });
    this.selects = ["Left", "Right"].map((side) => make("select", { "aria-label": `${spec.label}: ${side.toLowerCase()} side` }));
    this.output = make("output", {});
    this.pixels = make("input", { type: "checkbox" });
    this.caption = make("p", { class: "caption", "aria-live": "polite" });
    this.versions = make("div", { class: "versions", role: "radiogroup", "aria-label": `${spec.label}: right side` });
    const choices = make("div", { class: "choices", role: "radiogroup", "aria-label": `${spec.label}: image` },
      ...spec.items.map((item) => radio(`${this.group}-item`, item === this.item, page.images[item.layers[0].image],
        [item.caption || item.name], () => this.choose(item))));
    const button = (text, label, action) => make("button", { type: "button", "aria-label": label, onclick: action }, text);
    const zoom = make("span", { class: "zoom" },
      button("\u2212", "Zoom out", () => this.zoomBy(-1)), this.output, button("+", "Zoom in", () => this.zoomBy(1)),
      button("Reset", "Reset zoom and divider", () => { this.split = 50; this.reset(); this.show(); }));
    const bar = make("div", { class: "bar" },
      make("label", {}, "Left", this.selects[0]), make("label", {}, "Right", this.selects[1]), zoom,
      make("label", {}, this.pixels, "Pixels"));
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", spec.label);
    if (spec.items.length > 1) place.append(choices);
    place.append(make("div", {}, this.stage, this.range), make("div", {}, bar, this.caption, this.versions));
    this.stage.style.aspectRatio = "1";
    this.listen();
    this.choose(this.item);
  }

  reset() {
    [this.zoom, this.x, this.y] = [1, 0, 0];
  }

  listen() {
    this.range.addEventListener("input", () => { this.split = Number(this.range.value); this.show(); });
    this.pixels.addEventListener("change", () => this.show());
    this.selects[0].addEventListener("change", () => { this.left = this.selects[0].value; this.show(); });
    this.selects[1].addEventListener("change", () => this.chooseRight(this.selects[1].value));
    this.stage.addEventListener("keydown", (event) => this.press(event));
    this.stage.addEventListener("pointerdown", (event) => this.begin(event));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, () => { this.held = null; });
  }

  choose(item) {
    this.item = item;
    const names = item.layers.map((layer) => layer.name);
    if (!names.includes(this.right)) this.right = names[names.length - 1];
    if (!names.includes(this.left)) this.left = names[0];
    for (const select of this.selects) select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    this.versions.replaceChildren(...item.layers.map((layer) => radio(`${this.group}-version`, layer.name === this.right,
      page.images[layer.image], [layer.name, layer.caption].filter(Boolean), () => this.chooseRight(layer.name))));
    this.images[0].onload = () => {
      const { naturalWidth: width, naturalHeight: height } = this.images[0];
      this.stage.style.aspectRatio = `${width} / ${height}`;
      if (this.pixels.dataset.set === undefined) {
        this.pixels.checked = width < 200;  // small images are drawn many times their size
        this.pixels.dataset.set = "";
        this.show();
      }
    };
    this.show();
  }

  chooseRight(name) {
    this.right = name;
    this.item.layers.forEach((layer, index) => { this.versions.children[index].querySelector("input").checked = layer.name === name; });
    this.show();
  }

  zoomBy(step) {
    const now = ZOOMS.indexOf(this.zoom);
    const next = ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, now + step))];
    // The center stays where it is.
    for (const key of ["x", "y"]) this[key] = 0.5 - ((0.5 - this[key]) * next) / this.zoom;
    this.zoom = next;
    this.show();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.show();
  }

  press(event) {
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") this.zoomBy(1);
    else if (event.key === "-") this.zoomBy(-1);
    else if (event.key === "0") { this.reset(); this.show(); }
    else if (event.key in moves && this.zoom > 1) this.pan(...moves[event.key].map((way) => way * 0.1));
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      this.split = Math.min(100, Math.max(0, this.split + (event.key === "ArrowLeft" ? -2 : 2)));
      this.show();
    } else return;
    event.preventDefault();
  }

  begin(event) {
    const box = this.stage.getBoundingClientRect();
    const distance = Math.abs(event.clientX - box.left - (this.split / 100) * box.width);
    this.held = this.zoom === 1 || distance < 16 ? "divider" : "image";
    this.from = [event.clientX, event.clientY];
    this.stage.setPointerCapture(event.pointerId);
    this.drag(event);
  }

  drag(event) {
    if (!this.held) return;
    const box = this.stage.getBoundingClientRect();
    if (this.held === "divider") {
      this.split = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
      this.show();
    } else {
      const [x, y] = this.from;
      this.from = [event.clientX, event.clientY];
      this.pan((event.clientX - x) / box.width, (event.clientY - y) / box.height);
    }
  }

  show() {
    for (const key of ["x", "y"]) this[key] = Math.min(0, Math.max(1 - this.zoom, this[key]));
    const layers = [this.left, this.right].map((name) => this.item.layers.find((layer) => layer.name === name));
    layers.forEach((layer, side) => {
      const uri = page.images[layer.image];
      if (this.images[side].getAttribute("src") !== uri) this.images[side].src = uri;
      this.images[side].style.transform = `translate(${100 * this.x}%, ${100 * this.y}%) scale(${this.zoom})`;
      this.tags[side].textContent = layer.name;
      this.selects[side].value = layer.name;
    });
    this.sides[0].style.clipPath = `inset(0 ${100 - this.split}% 0 0)`;
    this.sides[1].style.clipPath = `inset(0 0 0 ${this.split}%)`;
    this.divider.style.left = `${this.split}%`;
    this.range.value = this.split;
    this.output.textContent = `${this.zoom}\u00d7`;
    this.stage.classList.toggle("zoomed", this.zoom > 1);
    this.stage.classList.toggle("pixelated", this.pixels.checked);
    const words = [this.item.name, ...layers.map((layer) => [layer.name, layer.caption].filter(Boolean).join(" "))];
    this.caption.textContent = `${words[0]}: ${words[1]} on the left, ${words[2]} on the right`;
    this.stage.setAttribute("aria-label", `${this.caption.textContent}. Arrow keys move the divider, or the image when zoomed; plus and minus zoom, 0 resets.`);
  }
}

for (const place of document.querySelectorAll(".viewer[data-block]")) new Viewer(place, page.blocks[Number(place.dataset.block)]);
