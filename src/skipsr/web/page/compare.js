// The stage: two pictures or videos of one size, a divider, zoom, and the mask over the result.

import { Masks } from "./masks.js";
import { Player } from "./player.js";

const $ = (id) => document.getElementById(id);
const ZOOMS = ["fit", "1", "2", "4", "8"];
const CRISP = 2; // screen pixels for one of the picture, from which it is shown without smoothing

export class Compare {
  constructor() {
    this.stage = $("stage");
    this.pictures = [$("image-before"), $("image-after")];
    this.videos = [$("video-before"), $("video-after")];
    this.masks = new Masks($("mask"));
    this.player = new Player(this.videos[1], this.videos[0], (frame) => this.shown(frame), (playing) => this.playing(playing));
    this.split = 0.5;
    this.zoom = "fit";
    this.middle = [0.5, 0.5]; // of the picture, in the middle of the stage
    this.size = null; // of the picture, [width, height]
    this.masked = false;
    this.number = 0; // of what is loaded, so that what comes late is left alone
    this.clear("");
    this.listen();
    new ResizeObserver(() => this.layout()).observe(this.stage);
  }

  // Shows nothing but a sentence.
  clear(sentence) {
    this.number += 1;
    this.player.unload();
    this.masks.load(null);
    this.size = null;
    for (const each of [...this.pictures, ...this.videos]) each.classList.remove("shown");
    this.stage.classList.add("bare");
    $("empty").hidden = !sentence;
    $("empty").textContent = sentence;
    $("transport").hidden = true;
  }

  // Two images, or one alone; `mask` is { url, grid, size }, the size that of the result in pixels of its file.
  async images(before, after, mask = null) {
    const number = (this.number += 1);
    const urls = after ? [before, after] : [before];
    const loaded = await Promise.all(urls.map(decoded));
    if (number !== this.number) return;
    this.player.unload();
    this.pictures.forEach((picture, i) => urls[i] && (picture.src = urls[i]));
    this.present(this.pictures.slice(0, urls.length), [loaded[0].naturalWidth, loaded[0].naturalHeight], mask);
    $("playing").hidden = true;
  }

  // Two videos; `times` is the address of their frames' seconds.
  async films(before, after, times, mask) {
    this.clear("");
    const number = this.number;
    const found = await fetch(times).then((answer) => answer.json());
    if (number !== this.number) return;
    await this.player.load(after, before, found);
    if (number !== this.number) return;
    const film = this.videos[1];
    $("scrub").max = found.length - 1;
    this.present(this.videos, [film.videoWidth, film.videoHeight], mask);
    $("playing").hidden = false;
    this.shown(0);
  }

  present(which, size, mask) {
    for (const each of [...this.pictures, ...this.videos]) each.classList.toggle("shown", which.includes(each));
    if (String(size) !== String(this.size)) this.middle = [0.5, 0.5];
    this.size = size;
    this.stage.classList.toggle("bare", which.length < 2);
    this.stage.style.setProperty("--ratio", size[0] / size[1]);
    this.masks.load(mask?.url, mask?.grid);
    this.stretch = size.map((side, i) => (mask?.size ? side / mask.size[i] : 1)); // pixels may be shown wider than high
    $("empty").hidden = true;
    $("transport").hidden = which.length < 2;
    $("show-mask").hidden = !mask;
    this.masks.draw(0);
    this.layout();
  }

  shown(frame) {
    const of = this.player.times.length;
    $("scrub").value = frame;
    $("scrub").setAttribute("aria-valuetext", `frame ${frame + 1} of ${of}`);
    $("time").textContent = `${frame + 1} / ${of} · ${(this.player.times[frame] ?? 0).toFixed(2)} s`;
    if (this.masked) this.masks.draw(frame);
  }

  playing(playing) {
    $("play").textContent = playing ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  // Puts everything in its place.
  layout() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const at = this.split * width;
    $("divider").style.left = `${at}px`;
    $("divider").setAttribute("aria-valuenow", Math.round(100 * this.split));
    $("divider").setAttribute("aria-valuetext", `${Math.round(100 * this.split)} % input`);
    if (!this.size) return;
    const [w, h] = this.size;
    const fit = Math.min(width / w, height / h);
    const scale = this.zoom === "fit" ? fit : Number(this.zoom) / devicePixelRatio;
    const place = [[width, w], [height, h]].map(([room, side], i) => {
      const free = room - side * scale;
      if (free >= 0) return free / 2;
      const left = Math.min(0, Math.max(free, room / 2 - this.middle[i] * side * scale));
      this.middle[i] = (room / 2 - left) / (side * scale); // no farther than the border
      return left;
    });
    const content = $("content");
    Object.assign(content.style, { left: `${place[0]}px`, top: `${place[1]}px`, width: `${w * scale}px`, height: `${h * scale}px` });
    content.classList.toggle("crisp", this.zoom !== "fit" && scale * devicePixelRatio >= CRISP);
    this.stage.classList.toggle("wide", scale > fit * 1.001);
    const cut = `inset(0 0 0 ${Math.max(0, at - place[0])}px)`;
    for (const each of [this.pictures[1], this.videos[1], $("mask")]) each.style.clipPath = cut;
    if (this.masks.grid) {
      const { rows, columns, height: high, width: wide } = this.masks.grid;
      const [across, down] = this.stretch;
      Object.assign($("mask").style, { width: `${columns * wide * across * scale}px`, height: `${rows * high * down * scale}px` });
    }
    $("mask").hidden = !(this.masked && this.masks.grid);
    this.scale = scale;
  }

  divide(share) {
    this.split = Math.min(1, Math.max(0, share));
    this.layout();
  }

  zoomTo(zoom) {
    this.zoom = zoom;
    $("zoom").value = zoom;
    this.layout();
  }

  zoomBy(steps) {
    const i = ZOOMS.indexOf(this.zoom) + steps;
    this.zoomTo(ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, i))]);
  }

  showMask(masked) {
    this.masked = masked;
    $("show-mask").setAttribute("aria-pressed", masked);
    if (masked) this.masks.draw(this.player.frame);
    this.layout();
  }

  listen() {
    $("play").onclick = () => this.player.toggle();
    $("back").onclick = () => this.player.step(-1);
    $("on").onclick = () => this.player.step(1);
    $("scrub").oninput = () => { const frame = Number($("scrub").value); this.player.pause(); this.player.seek(frame); };
    $("zoom").onchange = () => this.zoomTo($("zoom").value);
    $("show-mask").onclick = () => this.showMask(!this.masked);
    $("viewer").addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.stage.addEventListener("dblclick", () => this.zoomTo(this.zoom === "fit" ? "2" : "fit"));
    this.stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  }

  // The divider follows the pointer, or the picture does where it is larger than the stage.
  drag(event) {
    if (event.button || !this.size) return;
    const { left, width } = this.stage.getBoundingClientRect();
    const pans = this.stage.classList.contains("wide") && !$("divider").contains(event.target);
    let [x, y] = [event.clientX, event.clientY];
    const follow = (move) => {
      if (pans) {
        this.middle = this.middle.map((middle, i) => middle - [move.clientX - x, move.clientY - y][i] / (this.size[i] * this.scale));
        [x, y] = [move.clientX, move.clientY];
        this.layout();
      } else this.divide((move.clientX - left) / width);
    };
    if (!pans) follow(event);
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", follow);
    for (const end of ["pointerup", "pointercancel"])
      this.stage.addEventListener(end, () => this.stage.removeEventListener("pointermove", follow), { once: true });
  }

  key(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || !this.size) return;
    if (target.closest("form, select") || (target.type === "range" && key.startsWith("Arrow"))) return;
    if (key === " " && target.closest("button, a, summary")) return; // they have a use for it
    const far = event.shiftKey ? 0.1 : 0.01;
    const actions = {
      ArrowLeft: () => this.divide(this.split - far), ArrowRight: () => this.divide(this.split + far),
      Home: () => this.divide(0), End: () => this.divide(1),
      ",": () => this.player.step(-1), ".": () => this.player.step(1), " ": () => this.player.toggle(),
      "+": () => this.zoomBy(1), "=": () => this.zoomBy(1), "-": () => this.zoomBy(-1), 0: () => this.zoomTo("fit"),
      m: () => !$("show-mask").hidden && this.showMask(!this.masked),
    };
    if (!actions[key]) return;
    event.preventDefault();
    actions[key]();
  }
}

function decoded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image);
}
