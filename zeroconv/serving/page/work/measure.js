export function buildMeasure() { return () => {}; }
