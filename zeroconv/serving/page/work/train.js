export function buildTrain() { return () => {}; }
