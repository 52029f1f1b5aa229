// Three planes of one volume with scrolling, window and level: the same for every page of gyri.
"use strict";

const WINDOW = Object.freeze({ low: 0, high: 255 });

/** Whether this browser can draw volumes. */
function canDraw() {
  try {
    return Boolean(document.createElement("canvas").getContext("webgl2"));
  } catch {
    return false;
  }
}

const HEADER_BYTES = 352;

const NO_WEBGL =
  "This browser cannot draw volumes (it has no WebGL2). Use a recent Firefox, Chrome, Edge or " +
  "Safari (15 or later) and turn hardware acceleration on in its settings; on a machine without a " +
  "graphics card start Chrome or Chromium with --enable-unsafe-swiftshader. " +
  "The address chrome://gpu or about:support says what is missing.";

class Viewer {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.window = { ...WINDOW };
    this.onMove = () => {};
    this.nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.95, 0.6, 0.35, 0.8],
      crosshairWidth: 0.5,
      crosshairWidthUnit: "mm",
      crosshairGap: 5,
      dragAndDropEnabled: false,
      dragMode: 1,
      isColorbar: false,
      isOrientCube: false,
      isResizeCanvas: true,
      isRadiologicalConvention: false,
      loadingText: "",
      logLevel: "silent",
      multiplanarForceRender: false,
      multiplanarShowRender: 0,
      multiplanarPadPixels: 6,
      sliceType: 3,
      // Keys belong to the page; NiiVue's own would change the view without a word.
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      trustCalMinMax: true,
    });
    this.nv.onLocationChange = (at) => {
      this.at = Array.from(at.mm).slice(0, 3);
      this.onMove(this.at);
    };
    this.nv.onIntensityChange = (volume) => {
      this.window = { low: volume.cal_min, high: volume.cal_max };
    };
  }

  async attach() {
    await this.nv.attachToCanvas(this.canvas, false);
    this.skipGradients();
    this.nv.setMultiplanarLayout(this.canvas.clientWidth > 1.6 * this.canvas.clientHeight ? 3 : 2);
    return this;
  }

  /**
   * Leave out the gradients that NiiVue computes of every volume for lighting in its 3-D rendering:
   * it is never shown here, and without a graphics card they take most of the time.
   */
  skipGradients() {
    const { nv } = this;
    const { gl } = nv;
    const shaders = [nv.blurShader, nv.gradientPrePassShader, nv.sobelFirstOrderShader, nv.sobelSecondOrderShader];
    const programs = new Set(shaders.filter(Boolean).map((shader) => shader.program));
    const draw = gl.drawArrays.bind(gl);
    gl.drawArrays = (...how) => {
      if (!programs.has(gl.getParameter(gl.CURRENT_PROGRAM))) draw(...how);
    };
  }

  /** Show a volume (the bytes of a .nii file of numbers 0 to 255), window and cross at the start. */
  async show(buffer) {
    const header = String.fromCharCode(...new Uint8Array(buffer, 0, HEADER_BYTES));
    this.nv.scene.crosshairPos = [0.5, 0.5, 0.5];
    if (header === this.header) {
      this.nv.volumes[0].img.set(new Uint8Array(buffer, HEADER_BYTES));
      this.nv.volumes[0].cal_min = NaN; // so that the new numbers are painted
      this.setWindow(WINDOW.low, WINDOW.high);
    } else {
      const volume = await niivue.NVImage.loadFromUrl({
        url: "case.nii", buffer, name: "case.nii", cal_min: WINDOW.low, cal_max: WINDOW.high,
        trustCalMinMax: true,
      });
      while (this.nv.volumes.length) this.nv.removeVolumeByIndex(0);
      this.window = { ...WINDOW };
      this.nv.addVolume(volume); // draws it, too
      this.header = header;
    }
    this.at = Array.from(this.nv.frac2mm([0.5, 0.5, 0.5])).slice(0, 3);
    this.onMove(this.at);
  }

  setWindow(low, high) {
    const volume = this.nv.volumes[0];
    if (!volume || high - low < 4) return;
    const as = volume.cal_min === low && volume.cal_max === high;
    this.window = { low, high };
    volume.cal_min = low;
    volume.cal_max = high;
    if (as) this.nv.drawScene();
    else if (!this.paint(volume, low, high)) this.nv.updateGLVolume();
  }

  /**
   * Put a volume that lies along the axes right into the texture that is drawn. NiiVue's own way
   * turns and colours it slice by slice first, which takes seconds without a graphics card.
   */
  paint(volume, low, high) {
    const { gl, volumeTexture } = this.nv;
    const along = String(volume.permRAS) === "1,2,3" && volume.img instanceof Uint8Array;
    if (!along || !volumeTexture) return false;
    const grey = Uint32Array.from({ length: 256 }, (_, value) => {
      const level = Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low))));
      return (0xff000000 | (level << 16) | (level << 8) | level) >>> 0;
    });
    const painted = new Uint32Array(volume.img.length);
    for (let at = 0; at < painted.length; at++) painted[at] = grey[volume.img[at]];
    const [, i, j, k] = volume.dims;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_3D, volumeTexture);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, i, j, k, gl.RGBA, gl.UNSIGNED_BYTE,
      new Uint8Array(painted.buffer));
    this.nv.drawScene();
    return true;
  }

  /** Move the cross by voxels along left-right, back-front, down-up. */
  step(i, j, k) {
    this.nv.moveCrosshairInVox(i, j, k);
  }

  moveTo(mm) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm);
    this.nv.createOnLocationChange();
    this.nv.drawScene();
  }

  /** Scroll, and set window and level, by key; true where the key meant something. */
  key(event) {
    const { low, high } = this.window;
    const moves = {
      ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0],
      PageUp: [0, 1, 0], PageDown: [0, -1, 0],
    };
    const windows = {
      "[": [low - 8, high - 8], "]": [low + 8, high + 8],
      "-": [low + 8, high - 8], "=": [low - 8, high + 8], "+": [low - 8, high + 8],
      "0": [WINDOW.low, WINDOW.high],
    };
    if (moves[event.key]) this.step(...moves[event.key]);
    else if (windows[event.key]) this.setWindow(...windows[event.key]);
    else return false;
    event.preventDefault();
    return true;
  }
}

/** Let viewers share the cross, as far as their volumes overlap. */
function yoke(viewers) {
  for (const viewer of viewers) {
    viewer.nv.broadcastTo(viewers.filter((other) => other !== viewer).map((other) => other.nv),
      { "2d": true, "3d": false });
  }
}

async function getJson(path, body) {
  const response = await fetch(path, body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (!response.ok) {
    const error = new Error((await response.json().catch(() => ({}))).detail || response.statusText);
    error.status = response.status;
    throw error;
  }
  return response.json();
}

async function getVolume(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`The volume did not come (${response.status}).`);
  return response.arrayBuffer();
}

/** An element with text or children; nothing is ever parsed as HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
