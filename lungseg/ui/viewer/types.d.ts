/** The data of the server (`scene_data` in `__init__.py`, which documents them), and what the modules hand to each other. */

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

/** `LayerMask`: without `url` it is listed, not drawn. */
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

export interface Layer {
  key: string;
  label: string;
  name: string;
  listName: string;
  colour: Triple;
  fill: number;
  shortcut: string | null;
  shownWith: string | null;
  visible: boolean;
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

/** The model's mask is shown at the threshold in place `at` of `choices`, most sensitive first; the checkpoint's is in `defaultAt`. */
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

/** A mask to fetch, and the box that masks were cut to: a byte per voxel, four masks per texture. */
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

/** The tasks and answers of the loading worker. */
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

/** What this tab remembers of a case; every field may be missing or wrong. */
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
