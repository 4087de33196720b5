/** The people behind pictures of the history, so that their joints can be moved again. The server
 * keeps a pose as its drawn hint; its points are kept in this browser. */

const STORED = "zeroconv.poses";
const MOST = 300; // pictures

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORED) ?? "[]");
  } catch {
    return []; // no storage, or another version's
  }
}

/** After a job: `body` is what was asked for, `results` the pictures that came of it. */
export function keepPoses(body, results) {
  const poses = body.controls.map((unit) => unit.pose_json ?? null);
  if (!poses.some(Boolean) || !results.length) return;
  const entries = [...results.map((result) => [result.id, poses]), ...stored()].slice(0, MOST);
  try {
    localStorage.setItem(STORED, JSON.stringify(entries));
  } catch {
    localStorage.removeItem(STORED); // full: newer poses matter more than older ones
  }
}

/** The settings of a picture, with the points of its poses where this browser knows them. */
export function withPoses(item) {
  if (!item?.settings) return null;
  const poses = stored().find(([id]) => id === item.id)?.[1];
  if (!poses) return item.settings;
  const controls = (item.settings.controls ?? []).map((unit, number) =>
    poses[number] ? { ...unit, pose_json: poses[number] } : unit,
  );
  return { ...item.settings, controls };
}
