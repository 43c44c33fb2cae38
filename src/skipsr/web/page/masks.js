// Where the model did not run: a byte for every cell of every frame, fetched a stretch at a time.

const BYTES = 1 << 18; // of a stretch, about
const KEPT = 24; // stretches
const COLOUR = [26, 115, 255];
const STRENGTH = 0.55;

export class Masks {
  constructor(canvas) {
    this.canvas = canvas;
    this.load(null);
  }

  // `grid`: rows, columns, and the height and width of a cell in pixels of the result.
  load(url, grid) {
    this.url = url;
    this.grid = grid;
    this.held = new Map();
    this.wanted = -1;
    if (url) [this.canvas.width, this.canvas.height] = [grid.columns, grid.rows];
  }

  async draw(frame) {
    this.wanted = frame;
    if (!this.url) return;
    const { rows, columns } = this.grid;
    const size = rows * columns;
    const frames = Math.max(1, Math.floor(BYTES / size));
    const stretch = await this.stretch(Math.floor(frame / frames), frames * size);
    if (this.wanted !== frame || !stretch) return;
    const left = stretch.subarray((frame % frames) * size).subarray(0, size);
    const image = new ImageData(columns, rows);
    left.forEach((share, i) => image.data.set([...COLOUR, share * STRENGTH], 4 * i));
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.canvas.dataset.frame = frame;
  }

  stretch(number, bytes) {
    if (!this.held.has(number)) {
      if (this.held.size >= KEPT) this.held.delete(this.held.keys().next().value);
      const range = `bytes=${number * bytes}-${(number + 1) * bytes - 1}`;
      this.held.set(number, fetch(this.url, { headers: { range } })
        .then((found) => (found.ok ? found.arrayBuffer() : null))
        .then((buffer) => buffer && new Uint8Array(buffer))
        .catch(() => null));
    }
    return this.held.get(number);
  }
}
