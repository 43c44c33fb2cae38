// The list of files: what each is, how far it is, and what can be done with it.

import { download } from "./api.js";

const STAGES = { load: "loading the model", read: "reading", write: "writing" };

const button = (text, action, kind = "small") => {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", textContent: text, className: kind, onclick: action });
  return made;
};

const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
};

function described({ kind, width, height, frames, rate }) {
  return kind === "image" ? `${width} × ${height}` : `${width} × ${height} · ${frames} frames · ${clock(frames / rate)}`;
}

export function state(job) {
  const { frames = 0, done = frames, of = 0, stage } = job.progress;
  if (job.state === "queued") return job.place > 1 ? `waiting, number ${job.place}` : "waiting, next";
  if (job.state === "running" && job.doing === "preview") return "making the preview";
  if (job.state === "running" && done >= 1 && stage !== "finish" && done < of) return `${Math.floor(done)} of ${of} frames, ${clock(((of - done) * job.seconds) / done)} left`;
  if (job.state === "running" && done >= 1) return "finishing …";
  if (job.state === "running") return `${STAGES[stage] ?? "computing"} …`;
  if (job.error) return "failed";
  return { ready: job.preview ? "preview ready" : "ready", done: "done", cancelled: "cancelled" }[job.state] ?? job.state;
}

export class Files {
  // `act`: choose, cancel, remove; each is given a job's id.
  constructor(list, act) {
    Object.assign(this, { list, act, items: new Map() });
  }

  show(jobs, chosen) {
    for (const [id, item] of this.items) if (!jobs.some((job) => job.id === id)) {
      item.root.remove();
      this.items.delete(id);
    }
    jobs.forEach((job, i) => {
      if (!this.items.has(job.id)) this.items.set(job.id, this.make(job));
      const item = this.items.get(job.id);
      if (this.list.children[i] !== item.root) this.list.insertBefore(item.root, this.list.children[i] ?? null);
      this.update(item, job, job.id === chosen);
    });
  }

  make({ id, name, info }) {
    const root = document.createElement("li");
    root.className = "job";
    root.innerHTML = `<button class="name" type="button"><b></b></button><div class="body"><span class="quiet"></span>
      <progress aria-label="Progress" hidden></progress><div class="row"><span class="state"></span></div>
      <p class="problem" hidden></p><p class="notes quiet" hidden></p></div>`;
    const item = { root };
    for (const part of ["name", "quiet", "state", "problem", "notes", "row"]) item[part] = root.querySelector(`.${part}`);
    item.progress = root.querySelector("progress");
    item.name.firstChild.textContent = name;
    item.name.onclick = () => this.act.choose(id);
    item.quiet.textContent = described(info);
    item.cancel = button("Cancel", () => this.act.cancel(id));
    item.remove = button("Remove", () => this.act.remove(id));
    item.cancel.setAttribute("aria-label", `Cancel ${name}`);
    item.remove.setAttribute("aria-label", `Remove ${name}`);
    item.download = Object.assign(document.createElement("a"), { className: "button small", textContent: "Download" });
    item.download.setAttribute("aria-label", `Download the result of ${name}`);
    item.row.append(item.download, item.cancel, item.remove);
    this.list.append(root);
    return item;
  }

  update(item, job, chosen) {
    const active = job.state === "queued" || job.state === "running";
    item.root.classList.toggle("chosen", chosen);
    item.root.dataset.state = job.state;
    item.name.setAttribute("aria-pressed", chosen);
    item.state.textContent = state(job);
    item.cancel.hidden = !active;
    item.remove.hidden = active;
    item.download.hidden = !job.result;
    if (job.result) item.download.href = download(job);
    item.progress.hidden = job.state !== "running";
    const { frames = 0, done = frames, of = 0 } = job.progress;
    if (done) Object.assign(item.progress, { max: of, value: done });
    else item.progress.removeAttribute("value");
    for (const [part, text] of [["problem", job.error], ["notes", job.notes.join(" ")]]) {
      item[part].hidden = !text;
      item[part].textContent = text.replace(/`(\w+)`/g, "$1");
    }
  }
}

// A file on its way; `stop` gives it up.
export function upload(list, name, stop) {
  const root = document.createElement("li");
  root.className = "job";
  root.innerHTML = `<div class="body"><b></b><progress aria-label="Sent" max="1" value="0"></progress><div class="row"><span class="state">sending</span></div></div>`;
  root.querySelector("b").textContent = name;
  root.querySelector(".row").append(button("Stop", stop));
  list.prepend(root);
  return {
    progress(share) {
      root.querySelector("progress").value = share;
      root.querySelector(".state").textContent = share < 1 ? `sending, ${Math.floor(100 * share)} %` : "looking at it …";
    },
    end: () => root.remove(),
  };
}
