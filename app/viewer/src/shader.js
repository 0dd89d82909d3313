// How a slice and a surface are coloured. HU and labels are textures of their own at full resolution, so that window,
// colours, opacity and outline are numbers handed to the next frame and nothing has to be computed again.

export const UNITS = { hu: 12, labels: 13, table: 14, difference: 15 }

export const SLICE = `#version 300 es
precision highp int;
precision highp float;
uniform highp sampler3D hu;
uniform highp sampler3D labels;
uniform highp sampler3D difference;
uniform highp sampler2D table;
uniform vec2 limits;
uniform float overlayOpacity;
uniform float outline;
uniform float showDifference;
in vec3 texPos;
out vec4 color;

int labelAt(vec3 place) { return int(texture(labels, place).r * 255.0 + 0.5); }

bool inside(vec3 place) { return all(greaterThanEqual(place, vec3(0.0))) && all(lessThanEqual(place, vec3(1.0))); }

void main() {
  if (!inside(texPos)) { color = vec4(0.0, 0.0, 0.0, 1.0); return; }
  float grey = clamp((texture(hu, texPos).r - limits.x) / (limits.y - limits.x), 0.0, 1.0);
  color = vec4(vec3(grey), 1.0);
  int label = labelAt(texPos);
  vec4 organ = texelFetch(table, ivec2(label, 0), 0);
  vec3 dx = dFdx(texPos), dy = dFdy(texPos);
  bool edge = label > 0 && (labelAt(texPos + dx) != label || labelAt(texPos - dx) != label
    || labelAt(texPos + dy) != label || labelAt(texPos - dy) != label);
  float filled = overlayOpacity * (1.0 - outline);
  float strength = organ.a * (edge ? min(1.0, overlayOpacity * 2.2) : filled);
  color.rgb = mix(color.rgb, organ.rgb, strength);
  if (showDifference > 0.5) {
    int what = int(texture(difference, texPos).r * 255.0 + 0.5);
    vec3 tint = what == 1 ? vec3(0.96, 0.35, 0.35) : what == 2 ? vec3(0.35, 0.65, 1.0) : vec3(0.95, 0.8, 0.3);
    if (what > 0) color.rgb = mix(color.rgb, tint, 0.75);
  }
}`

export const SURFACE = `#version 300 es
precision highp int;
precision highp float;
uniform float opacity;
uniform vec4 cut;
in vec4 vClr;
in vec3 vN;
in vec4 vP;
out vec4 color;
void main() {
  if (dot(vP.xyz, cut.xyz) > cut.w) discard;
  vec3 n = normalize(vN);
  float facing = gl_FrontFacing ? 1.0 : -1.0;
  float light = 0.38 + 0.62 * abs(dot(n, normalize(vec3(0.25, 0.45, -1.0))));
  float shine = 0.12 * pow(abs(n.z), 24.0);
  vec3 rgb = vClr.rgb * light + shine;
  color = vec4(mix(rgb, rgb * 0.82, facing < 0.0 ? 1.0 : 0.0), opacity);
}`
