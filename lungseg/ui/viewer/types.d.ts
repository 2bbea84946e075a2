/** What the server tells the viewer (`scene_data` in `__init__.py`, records as they are there), and what the modules hand to each other. */

export type Triple = [number, number, number];
export type Box = [left: number, top: number, width: number, height: number];

/** The scan's grid: RAS+, and how the array of the file turns to it. */
export interface Grid {
  shape: Triple;
  spacingMm: Triple;
  affine: number[][];
  axes: Triple;
  flips: [boolean, boolean, boolean];
}

export interface Lesion {
  number: number;
  volumeMl: number;
  probability: number | null;
  centreMm: Triple;
  centreIndex: Triple;
  extentMm: Triple;
  slices: [first: number, last: number];
}

/** A mask and its lesions. Without `url` it is listed, not drawn. `mark` is the value of its voxels, null for any but 0. */
export interface Mask {
  url: string | null;
  sha: string | null;
  mark: number | null;
  volumeMl: number;
  sliceVoxels: number[];
  statement: string;
  remark: string;
  probabilityMeaning: string;
  lesions: Lesion[];
}

/** One mask over the scan; of several, the first is drawn on top of the others. */
export interface Layer {
  key: string;
  label: string;
  /** In a sentence: "the model's mask". */
  name: string;
  /** Accessible name of the list of its lesions. */
  listName: string;
  /** Red, green, blue: 0 to 1. */
  colour: Triple;
  /** How much of the opacity its filled voxels take. */
  fill: number;
  /** The key that shows and hides it; null for none. */
  shortcut: string | null;
  /** The layer whose switch shows this one too; null where it has its own. */
  shownWith: string | null;
  /** Whether it is shown at first. */
  visible: boolean;
  /** What stands where there is no mask; the layer is not listed then where it is empty. */
  absence: string;
  mask: Mask | null;
}

export interface WindowPreset {
  name: string;
  label: string;
  centre: number;
  width: number;
  shortcut: string;
}

export interface Finding {
  severity: "not understood" | "incomplete" | "warning" | "note";
  text: string;
  remedy: string;
}

/** At which threshold the model's mask is shown: place `at` of `choices`, most sensitive first; the checkpoint's at `defaultAt`. */
export interface Threshold {
  maskId: string;
  at: number;
  defaultAt: number;
  choices: { level: number; threshold: string; expected: string }[];
  reason: string;
}

export interface CaseData {
  caseId: string;
  bundleUrl: string;
  scan: { url: string; sha: string };
  grid: Grid;
  layers: Layer[];
  windows: WindowPreset[];
  caution: string;
  findings: Finding[];
  threshold: Threshold | null;
  provenance: [label: string, value: string, whole: string, address: string][];
}

/** A lesion by the key of its layer and its place in the list. */
export interface LesionPlace {
  layer: string;
  at: number;
}

/** How the slices are drawn; `visible` by the keys of layers that have a switch. */
export interface View {
  window: [centre: number, width: number];
  opacity: number;
  isContour: boolean;
  visible: Record<string, boolean>;
  zoom: number;
  pan: Triple;
}

export type PlaneName = "axial" | "sagittal" | "coronal";

export interface Plane {
  name: PlaneName;
  /** Axis that the plane cuts, and those that run across and up its picture. */
  normal: number;
  across: [number, number];
  /** Sides of the body at left, right, top and bottom. */
  letters: [string, string, string, string];
}

/** A pane and the room for its picture in it, as shares of the stage. */
export interface Pane {
  plane: Plane;
  position: Box;
  inner: Box;
}

/** Where a picture lies on the canvas (device pixels), and which millimetres it shows. */
export interface Tile {
  box: Box;
  leftBottomMm: [number, number];
  fieldMm: [number, number];
}

/** What a place of the scan holds. */
export interface Reading {
  index: Triple;
  hu: number;
  mm: Triple;
}

/** What is to be fetched of a mask, and the box that masks were cut to: a byte a voxel, four masks a texture. */
export interface MaskRequest {
  url: string;
  sliceVoxels: number[];
  mark: number | null;
}

export interface PackedMasks {
  low: Triple;
  size: Triple;
  textures: Uint8Array[];
}

export type StoredArray = Uint8Array | Int8Array | Int16Array | Uint16Array;

/** Voxels as a file holds them. */
export interface StoredVoxels {
  array: StoredArray;
  slope: number;
  intercept: number;
}

/** What the loading worker is asked for, and what it answers. */
export type Task =
  | { task: "scan"; url: string; grid: Grid }
  | { task: "masks"; masks: (MaskRequest | null)[]; grid: Grid };

export interface Answer {
  id: number;
  bytes?: number;
  result?: unknown;
  error?: string;
  isExpected?: boolean;
}

export interface ScanResult {
  voxels: StoredVoxels;
  halves: Uint16Array;
}

/** What is remembered of a case in this tab; nothing in it is sure. */
export interface Remembered {
  index?: Triple;
  view?: Partial<View>;
  enlarged?: string | null;
  lesion?: LesionPlace | null;
  threshold?: { maskId: string; level: number };
  links?: string[];
}

/** The part of NiiVue that `niivue_adapter.js` uses. */
export interface NiivueShader {
  program: WebGLProgram;
}

export interface Niivue {
  gl: WebGL2RenderingContext;
  customSliceShader: NiivueShader | null;
  screenSlices: { leftTopWidthHeight: Box; leftTopMM: number[]; fovMM: number[] }[];
  scene: { crosshairPos: ArrayLike<number>; pan2Dxyzmm: ArrayLike<number>; renderAzimuth: number; renderElevation: number };
  attachToCanvas(canvas: HTMLCanvasElement, isAntiAlias: boolean): Promise<unknown>;
  setCustomSliceShader(source: string): void;
  setCustomLayout(layout: { sliceType: number; position: Box }[]): void;
  addVolume(volume: unknown): void;
  addColormap(name: string, map: ColourMap): void;
  setVolumeRenderIllumination(amount: number): Promise<void>;
  setRenderAzimuthElevation(azimuth: number, elevation: number): void;
  resizeListener(): void;
  drawScene(): void;
  cleanup(): void;
}

export interface NiivueLibrary {
  Niivue: new (options: Record<string, unknown>) => Niivue;
  NVImage: { new: (buffer: ArrayBuffer, name: string, ...more: unknown[]) => Promise<unknown> };
}

export interface ColourMap {
  R: number[];
  G: number[];
  B: number[];
  A: number[];
  I: number[];
}
