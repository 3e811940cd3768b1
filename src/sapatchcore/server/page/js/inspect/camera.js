/** Pictures from a camera at this PC: on request, or one every few seconds. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { remember, remembered } from "../remember.js";
import { change } from "../store.js";
import { count, t } from "../text.js";
import { add, unfinished } from "./queue.js";

const EVERY = [1, 2, 5, 10, 30, 60]; // seconds; 0 is off

const camera = { stream: null, devices: [], error: null, every: 0 };
let video = null;
let timer = null;
let asked = 0; // of the requests for a camera; only the last one's answer counts

export const cameraIsOn = () => camera.stream !== null;

export async function toggleCamera() {
  if (camera.stream || camera.error) return stop();
  await start(remembered().camera ?? null);
}

/** Cameras are given to a page only where its address is safe: https, or this very PC. */
async function start(device) {
  stop();
  const mine = ++asked;
  if (!navigator.mediaDevices?.getUserMedia) return say(t("camera-needs-https"));
  const size = { width: { ideal: 1920 }, height: { ideal: 1080 } };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...size, ...(device && { deviceId: { ideal: device } }) } });
  } catch (error) {
    return say(t(error.name === "NotAllowedError" ? "camera-not-allowed" : error.name === "NotFoundError" ? "camera-none" : "camera-failed", { error: error.message }));
  }
  if (mine !== asked) return stream.getTracks().forEach((track) => track.stop());
  camera.stream = stream;
  stream.getVideoTracks()[0].addEventListener("ended", () => {
    if (camera.stream === stream) stop(t("camera-gone"));
  });
  video ??= Object.assign(document.createElement("video"), { autoplay: true, muted: true, playsInline: true });
  video.srcObject = stream;
  camera.devices = (await navigator.mediaDevices.enumerateDevices()).filter((found) => found.kind === "videoinput");
  change();
}

function say(error) {
  camera.error = error;
  change();
}

function stop(error = null) {
  asked += 1;
  clearInterval(timer);
  camera.every = 0;
  camera.stream?.getTracks().forEach((track) => track.stop());
  Object.assign(camera, { stream: null, error });
  if (video) video.srcObject = null;
  change();
}

/** What the camera sees now, as a PNG: JPEG would add marks of its own to what is judged. */
export async function takePicture() {
  if (!camera.stream || !video.videoWidth) return;
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  const stamp = new Date().toISOString().replace(/\D/g, "").slice(0, 17);
  add([new File([blob], `camera-${stamp}.png`, { type: "image/png" })], "camera");
}

function live(seconds) {
  clearInterval(timer);
  camera.every = seconds;
  // A picture is left out while the last one is on its way, so that a slow server is not buried.
  if (seconds) timer = setInterval(() => unfinished() || takePicture(), seconds * 1000);
  change();
}

function chooseDevice(event) {
  remember({ camera: event.target.value });
  start(event.target.value);
}

/** The camera's card: its picture, which camera, and how often. */
export function cameraCard() {
  if (camera.error) {
    return html`<section class="camera card"><div class="alert alert-warning m-2" role="alert">${camera.error}
      <div class="mt-2"><button class="btn btn-outline-dark" @click=${() => start(null)}>${t("try-again")}</button>
      <button class="btn btn-outline-dark" @click=${() => stop()}>${t("close")}</button></div></div></section>`;
  }
  if (!camera.stream) return nothing;
  const used = camera.stream.getVideoTracks()[0].getSettings().deviceId;
  return html`<section class="camera card" aria-label=${t("camera")}>
    <div class="camera-view">${video}</div>
    <div class="camera-row">
      <button class="btn btn-primary btn-lg" data-take @click=${takePicture}>${t("take-picture")} <kbd>␣</kbd></button>
      <label>${t("live")}
        <select class="form-select" data-live @change=${(event) => live(Number(event.target.value))}>
          <option value="0" .selected=${camera.every === 0}>${t("live-off")}</option>
          ${EVERY.map((n) => html`<option value=${n} .selected=${camera.every === n}>${t("live-every", { n, seconds: count(n) })}</option>`)}
        </select></label>
      <label>${t("camera")}
        <select class="form-select" data-camera @change=${chooseDevice}>
          ${camera.devices.map((device, i) => html`<option value=${device.deviceId} .selected=${device.deviceId === used}>${device.label || `${t("camera")} ${i + 1}`}</option>`)}
        </select></label>
    </div>
  </section>`;
}
