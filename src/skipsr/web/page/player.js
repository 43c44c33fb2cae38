// Two videos as one. The result is the clock; the input follows it.

const FAR = 0.3; // seconds: nearer than that the follower only runs a little faster or slower
const NUDGE = 0.2; // of its speed, at most

export class Player {
  // `shown` is told the index of each frame that appears, `state` whether it plays.
  constructor(master, slave, shown, state) {
    Object.assign(this, { master, slave, shown, state });
    this.times = [];
    this.frame = 0;
    this.wants = false;
    this.apart = false;
    this.watch = () => master.requestVideoFrameCallback((_, { mediaTime }) => {
      this.appeared(mediaTime);
      this.watch();
    });
    this.watch();
    master.addEventListener("ended", () => this.wants && this.restart());
    for (const [one, other] of [[master, slave], [slave, master]]) {
      one.addEventListener("waiting", () => this.wants && !one.seeking && other.pause());
      one.addEventListener("playing", () => this.wants && other.paused && this.resume());
    }
  }

  async load(after, before, times) {
    this.pause();
    this.times = times;
    this.frame = 0;
    await Promise.all([[this.master, after], [this.slave, before]].map(([video, url]) =>
      new Promise((resolve, reject) => {
        // iOS decodes nothing before it is told to play
        video.onloadedmetadata = () => video.play().then(() => video.pause(), () => { /* not allowed */ }).then(resolve);
        video.onerror = () => reject(new Error("this browser cannot play the comparison: download the result"));
        video.src = url;
      })));
    this.seek(0);
  }

  unload() {
    this.pause();
    for (const video of [this.master, this.slave]) {
      video.onerror = null;
      video.removeAttribute("src");
      video.load();
    }
    this.times = [];
  }

  get half() { // of a frame, seconds
    const { times } = this;
    return times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) / 2 : 1 / 48;
  }

  // The frame that is shown at a time, up to rounding.
  at(time) {
    let [low, high] = [0, this.times.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= time + this.half / 4) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  appeared(time) {
    if (!this.times.length || this.master.seeking) return; // a frame of before comes late
    this.frame = this.at(time);
    this.correct();
    this.shown(this.frame);
  }

  correct() {
    const { master, slave } = this;
    const ahead = slave.currentTime - master.currentTime;
    this.apart = Math.abs(ahead) > (this.apart ? this.half / 4 : this.half); // once begun, it is mended well
    if (!this.apart) slave.playbackRate = master.playbackRate;
    else if (slave.seeking || slave.ended) return;
    else if (!master.paused && Math.abs(ahead) < FAR)
      slave.playbackRate = master.playbackRate * (1 - Math.sign(ahead) * NUDGE);
    else slave.currentTime = master.currentTime;
  }

  play() {
    if (!this.times.length) return;
    this.wants = true;
    this.state(true);
    if (this.frame >= this.times.length - 1) this.restart();
    else this.resume();
  }

  pause() {
    const played = this.wants;
    this.wants = false;
    this.master.pause();
    this.slave.pause();
    this.state(false);
    if (played) this.seek(this.frame); // both in the middle of the same frame
  }

  toggle() { this.wants ? this.pause() : this.play(); }

  step(frames) {
    this.pause();
    this.seek(this.frame + frames);
  }

  seek(frame) {
    if (!this.times.length) return;
    const last = this.times.length - 1;
    this.frame = Math.min(last, Math.max(0, frame));
    const here = this.times[this.frame];
    const end = this.frame < last ? this.times[this.frame + 1] : here + 2 * this.half;
    this.master.currentTime = this.slave.currentTime = (here + end) / 2;
    this.shown(this.frame);
  }

  restart() {
    this.master.currentTime = this.slave.currentTime = 0;
    this.resume();
  }

  resume() {
    const { master, slave } = this;
    if (Math.abs(slave.currentTime - master.currentTime) > this.half) slave.currentTime = master.currentTime;
    for (const video of [master, slave]) video.play().catch(() => { /* paused before it began */ });
  }
}
