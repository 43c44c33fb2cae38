// The page: which job is chosen, what of it is shown, and what is asked of the server.

import * as api from "./api.js";
import { Compare } from "./compare.js";
import { Files, state, upload } from "./files.js";
import { Form } from "./form.js";

const $ = (id) => document.getElementById(id);
const TYPES = { h264: 'video/mp4; codecs="avc1.640028"', av1: 'video/webm; codecs="av01.0.08M.08"' };
const INVITED = matchMedia("(hover: none)").matches ? "Tap to choose a video or an image" : "Drop a video or an image here, or click to choose one";
const compare = new Compare();
const files = new Files($("jobs"), { choose: pick, cancel: (id) => attempt(api.cancel(id)), remove: (id) => attempt(api.remove(id)) });
let options = null;
let form = null;
let jobs = [];
let heard = false; // whether the server has said which jobs there are
let server = null;
let chosen = location.hash.slice(1);
let shown = ""; // what the stage shows
let wanted = "preview"; // of a job that has a preview and a result
let said = "";
let picks = 0; // how often somebody chose a job

const job = () => jobs.find(({ id }) => id === chosen);
const codec = () => Object.keys(TYPES).find((name) => document.createElement("video").canPlayType(TYPES[name])) ?? "h264";

async function attempt(asked) {
  problem("");
  try { return await asked; } catch (error) { problem(error.message); return null; }
}

function problem(sentence) {
  $("problem").hidden = !sentence;
  $("problem").textContent = sentence.replace(/`(\w+)`/g, "$1");
}

function say(sentence) {
  if (sentence !== said) $("said").textContent = said = sentence;
}

function choose(id) {
  chosen = id;
  wanted = "preview";
  history.replaceState(null, "", id ? `#${id}` : location.pathname);
  render();
}

function pick(id) {
  picks += 1;
  choose(id);
}

function news(told) {
  if (server && server !== told.server) problem("The server was restarted: what it had before is gone.");
  server = told.server;
  jobs = told.jobs;
  heard = true;
  if (!job() && chosen) choose("");
  if (!chosen && jobs.length) choose(jobs[0].id);
  else render();
}

// Sends files one after the other. The first that is taken is chosen, unless somebody chooses meanwhile; what is
// refused is told of all of them.
async function take(found) {
  problem("");
  const before = picks;
  const refused = [];
  const refuse = (sentence) => {
    if (!sentence) return; // it was stopped
    refused.push(sentence);
    problem(refused.join("; "));
  };
  let taken = false;
  for (const file of found) {
    if (options && file.size > options.upload_bytes) {
      refuse(`${file.name} is larger than the ${(options.upload_bytes / 2 ** 30).toPrecision(3)} GiB that are taken here`);
      continue;
    }
    const sending = api.send(file, (share) => item.progress(share));
    const item = upload($("uploads"), file.name, sending.stop);
    try {
      const { id } = await sending.done;
      if (!taken && before === picks) choose(id);
      taken = true;
    } catch (error) { refuse(error.message); }
    item.end();
  }
}

function render() {
  const found = job();
  files.show(jobs, chosen);
  $("none").hidden = jobs.length > 0 || $("uploads").children.length > 0;
  $("options").hidden = !found || !form;
  $("stage").classList.toggle("invites", !found);
  show(found);
  $("told").textContent = found ? told(found) : "";
  const running = jobs.find((each) => each.state === "running" && each.progress.done);
  document.title = running ? `${Math.floor((100 * running.progress.done) / running.progress.of)} % · skipsr` : "skipsr";
  if (!found || !form) return;
  form.about(found.info);
  const active = found.state === "queued" || found.state === "running";
  const film = found.info.kind !== "image";
  $("upscale").disabled = $("preview").disabled = active;
  $("preview").hidden = $("frame-label").hidden = !film;
  if ($("frame").dataset.of !== found.id) {
    $("frame").dataset.of = found.id;
    $("frame").max = found.info.frames;
    $("frame").value = found.info.poster + 1; // people count from one, the server from zero
  }
  const done = found.state === "running" && found.progress.frames ? Math.floor((4 * found.progress.frames) / found.progress.of) * 25 : null;
  say(done === null ? `${found.name}: ${found.state === "running" ? "running" : state(found)}${found.error ? `, ${found.error}` : ""}` : `${found.name}: ${done} %`);
}

// What there is to be seen of a job: the best of result, preview, what was made last, and the first frame.
function view(found) {
  if (!found) return heard ? "invitation" : "none";
  const both = found.result && found.preview;
  if (found.preview && !(both && wanted === "result")) return `preview ${found.version}`;
  if (found.result) return `result ${found.version}`;
  if (found.state === "running" && found.doing === "upscale" && found.live) return `live ${found.version} ${found.live}`;
  return "poster";
}

async function show(found) {
  const what = view(found);
  const key = `${found?.id} ${what}`;
  const at = (role, number) => api.address(found, role, number);
  $("download").hidden = !found?.result;
  $("which").hidden = !(found?.result && found.preview);
  $("which").textContent = what.startsWith("preview") ? "Show the result" : "Show the preview";
  if (found?.result) $("download").href = api.download(found);
  if (key === shown) return;
  shown = key;
  try {
    if (!found) compare.clear(heard ? INVITED : "");
    else if (what === "poster") await compare.images(at("poster"));
    else if (what.startsWith("live")) await compare.images(at("live-before", what), at("live-after", what));
    else if (what.startsWith("preview"))
      await compare.images(at("preview-before"), at("preview-after"), { url: at("preview-mask"), grid: found.preview.grid });
    else {
      const { width, height } = found.result.report;
      const mask = { url: at("mask"), grid: found.result.grid, size: [width, height] };
      if (found.info.kind === "image") await compare.images(at("before"), at("after"), mask);
      else await compare.films(at("before"), at("after"), at("times"), mask);
    }
  } catch (error) {
    if (key === shown) compare.clear(error.message); // else it is of what is shown no longer
  }
}

function told(found) {
  const what = view(found);
  const made = what.startsWith("preview") ? found.preview : what.startsWith("result") ? found.result : found;
  const asked = Object.entries(made.asked).map(([name, value]) => (name === "model" ? value : `${name} ${value}`)).join(", ");
  if (what.startsWith("live")) return `What was finished last. ${asked}.`;
  if (what.startsWith("preview")) return `Preview of frame ${found.preview.frame + 1}. ${asked}.`;
  if (!what.startsWith("result")) return found.info.kind === "image" ? `${found.name}, as it is.` : `${found.name}, as it is: frame ${found.info.poster + 1} of ${found.info.frames}.`;
  const { width, height, computed, seconds } = found.result.report;
  return `${width} × ${height}, ${asked}. ${Math.round(100 * computed)} % of the picture was computed, in ${seconds.total.toFixed(1)} s.`;
}

function listen() {
  $("stage").addEventListener("click", () => { if (!job() && heard) $("pick").click(); });
  $("pick").onchange = () => { take([...$("pick").files]); $("pick").value = ""; };
  $("sample").onclick = async () => {
    $("sample").disabled = true;
    const made = await attempt(api.sample());
    $("sample").disabled = false;
    if (made) pick(made.id);
  };
  $("options").onsubmit = (event) => {
    event.preventDefault();
    attempt(api.upscale(chosen, { ...form.answers(), codec: codec() }));
  };
  $("preview").onclick = () => {
    wanted = "preview";
    attempt(api.preview(chosen, { ...form.answers(), frame: Number($("frame").value) - 1 }));
  };
  $("which").onclick = () => { wanted = wanted === "result" ? "preview" : "result"; render(); };
  window.onhashchange = () => pick(location.hash.slice(1));
  let depth = 0; // enter and leave come for every element on the way
  document.addEventListener("dragenter", () => { depth += 1; $("stage").classList.add("dropping"); });
  document.addEventListener("dragleave", () => { depth -= 1; $("stage").classList.toggle("dropping", depth > 0); });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    $("stage").classList.remove("dropping");
    take([...event.dataTransfer.files]);
  });
}

listen();
api.listen(news, (why) => { $("connection").textContent = why && `${why[0].toUpperCase()}${why.slice(1)}; trying again …`; });
options = await attempt(api.options());
if (options) {
  form = new Form($("controls"), options);
  render();
}
