"""What the viewer needs of NiiVue, told by name where a release of it changes; it stays as it is for everybody else."""

import pytest

from lungseg.web.modules import module_address
from tests.browser.looking import state

pytestmark = pytest.mark.browser

IMPORTED = """
  const { NiivuePlanes, NiivueRendering, lackOf } = await import(adapter);
  const library = await import(bundle);
"""
LACKS = f"""async ([adapter, bundle]) => {{{IMPORTED}
  const cuts = {{
    setCustomSliceShader: (nv) => {{ nv.setCustomSliceShader = undefined; }},
    resizeListener: (nv) => {{ nv.resizeListener = undefined; }},
    screenSlices: (nv) => delete nv.screenSlices,
    'scene.pan2Dxyzmm': (nv) => {{
      const scene = {{ crosshairPos: 0, renderAzimuth: 0, renderElevation: 0 }};
      Object.defineProperty(nv, 'scene', {{ value: scene }});
    }},
  }};
  const found = {{}};
  for (const [name, cut] of Object.entries(cuts)) {{
    const Niivue = function changed(options) {{
      const nv = new library.Niivue(options);
      cut(nv);
      return nv;
    }};
    found[name] = lackOf({{ ...library, NVImage: library.NVImage, Niivue }});
  }}
  return [lackOf(library), lackOf({{}}), found];
}}"""
DRAWN = f"""async ([adapter, bundle]) => {{{IMPORTED}
  const grid = {{ shape: [40, 60, 20], spacingMm: [2, 1, 3] }};
  const holder = document.createElement('div');
  holder.style = 'position: fixed; left: 0; top: 0; width: 400px; height: 200px; visibility: hidden';
  const canvas = document.createElement('canvas');
  canvas.style = 'width: 400px; height: 200px';
  holder.append(canvas);
  document.body.append(holder);
  const planes = await NiivuePlanes.open(library, canvas, grid);
  planes.setShader(`#version 300 es
    precision highp float;
    uniform vec4 tint[2];
    in vec3 texPos;
    out vec4 color;
    void main() {{ color = vec4(texPos * tint[1].a, 1.0); }}`);
  planes.setLayout([{{ name: 'axial', box: [0, 0, 0.5, 1] }}, {{ name: 'coronal', box: [0.5, 0, 0.5, 1] }}]);
  planes.resize();
  planes.gl.uniform4fv(planes.uniform('tint'), [0, 0, 0, 0, 0, 0, 0, 1]);
  const at = ([x, y]) => {{
    const pixel = new Uint8Array(4), {{ gl }} = planes;
    gl.readPixels(Math.floor(x), canvas.height - 1 - Math.floor(y), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    return [...pixel.slice(0, 3)].map((value) => value / 255);
  }};
  const views = [];
  for (const [pan, zoom] of [[[0, 0, 0], 1], [[8, -6, 0], 2]]) {{
    planes.draw([0.25, 0.75, 0.6], pan, zoom);
    for (const pane of [0, 1]) {{
      const {{ box, leftBottomMm, fieldMm }} = planes.tile(pane);
      const point = [box[0] + box[2] * 0.3, box[1] + box[3] * 0.4];
      views.push({{ pane, box, leftBottomMm, fieldMm, seen: at(point) }});
    }}
  }}
  planes.close();
  holder.remove();
  return {{ views, size: [canvas.width, canvas.height] }};
}}"""
STARTED = f"""async ([adapter, bundle]) => {{{IMPORTED}
  const holder = document.createElement('div');
  const canvas = document.createElement('canvas');
  holder.append(canvas);
  document.body.append(holder);
  const {{ prototype }} = WebGL2RenderingContext;
  const before = prototype.shaderSource;
  const opening = NiivuePlanes.open(library, canvas, {{ shape: [4, 4, 4], spacingMm: [1, 1, 1] }});
  const gl = canvas.getContext('webgl2');
  const during = [Object.hasOwn(gl, 'shaderSource'), prototype.shaderSource === before];
  const other = document.createElement('canvas').getContext('webgl2');
  const shader = other.createShader(other.VERTEX_SHADER);
  other.shaderSource(shader, 'void main() {{}}');
  during.push(other.getShaderSource(shader) === 'void main() {{}}');
  const planes = await opening;
  const after = [Object.hasOwn(gl, 'shaderSource'), prototype.shaderSource === before];
  planes.close();
  holder.remove();
  return {{ during, after }};
}}"""
SIDES_MM = (80, 60, 60)


@pytest.fixture
def modules_of(viewer):
    return [module_address("viewer/niivue_adapter.js"), state(viewer, "state.data.bundleUrl")]


def test_what_niivue_lacks_is_named(viewer, modules_of):
    lack, of_nothing, found = viewer.evaluate(LACKS, modules_of)
    assert lack == []
    assert of_nothing == ["Niivue", "NVImage.new"]
    assert found == {name: [name] for name in found}


def test_planes_lie_where_niivue_says(viewer, modules_of):
    """The shader is told the place in the scan's box, and the tiles say the same of each pixel."""
    drawn = viewer.evaluate(DRAWN, modules_of)
    assert drawn["size"] == [400, 200]
    for view in drawn["views"]:
        left, _, width, _ = view["box"]
        assert 200 * view["pane"] <= left
        assert left + width <= 200 * (view["pane"] + 1) + 1
        across, up, cut = ((0, 1, 2), (0, 2, 1))[view["pane"]]
        share = [0.0, 0.0, 0.0]
        share[across] = (view["leftBottomMm"][0] + 0.3 * view["fieldMm"][0]) / SIDES_MM[across] + 0.5
        share[up] = (view["leftBottomMm"][1] + 0.6 * view["fieldMm"][1]) / SIDES_MM[up] + 0.5
        share[cut] = (0.25, 0.75, 0.6)[cut]
        assert view["seen"] == pytest.approx(share, abs=0.012)
        assert view["fieldMm"][0] < 0  # the patient's right is on the left
    plain, zoomed = drawn["views"][0], drawn["views"][2]
    assert abs(zoomed["fieldMm"][0]) == pytest.approx(abs(plain["fieldMm"][0]) / 2)


def test_shaders_are_emptied_for_one_canvas_alone(viewer, modules_of):
    assert viewer.evaluate(STARTED, modules_of) == {"during": [True, True, True], "after": [False, True]}
