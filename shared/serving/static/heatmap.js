// The attention as a map over the image: patches with little attention are darkened, those with much stay as they are.

const DARKEST = 0.75; // opacity over a patch without attention; the image stays recognizable

/** Return the mean over tokens of maps [tokens][rows][columns]. */
export function meanMap(maps) {
  return maps[0].map((row, y) => row.map((_, x) => maps.reduce((sum, map) => sum + map[y][x], 0) / maps.length));
}

/** Return the sum of a map, its largest value, and where that is (row and column from 1). */
export function summarize(map) {
  const best = { total: 0, largest: -1, row: 0, column: 0, rows: map.length, columns: map[0].length };
  map.forEach((row, y) => row.forEach((value, x) => {
    best.total += value;
    if (value > best.largest) Object.assign(best, { largest: value, row: y + 1, column: x + 1 });
  }));
  return best;
}

/** Draw a map on a canvas that covers the image. `region` is the part of the image that the model receives. */
export function drawHeat(canvas, map, region) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  const [left, top, right, bottom] = region;
  const { largest, rows, columns } = summarize(map);
  const x = column => Math.round((left + ((right - left) * column) / columns) * canvas.width);
  const y = row => Math.round((top + ((bottom - top) * row) / rows) * canvas.height);
  const veil = alpha => `rgb(9 12 28 / ${alpha})`;
  context.fillStyle = veil(DARKEST); // what the model does not receive
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(x(0), y(0), x(columns) - x(0), y(rows) - y(0));
  map.forEach((values, row) => values.forEach((value, column) => {
    const width = x(column + 1) - x(column), height = y(row + 1) - y(row);
    const strength = largest > 0 ? value / largest : 0;
    context.fillStyle = veil(DARKEST * (1 - strength));
    context.fillRect(x(column), y(row), width, height);
    if (strength >= 0.5) {
      const line = Math.max(1, Math.round(1.5 * ratio));
      context.strokeStyle = "#ff9a3c";
      context.lineWidth = line;
      context.strokeRect(x(column) + line / 2, y(row) + line / 2, width - line, height - line);
    }
  }));
}

/** Clear the canvas. */
export function clearHeat(canvas) {
  canvas.width = canvas.height = 0;
}
