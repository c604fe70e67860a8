/** Which SQL shows a stretch of time, and what its answer means. Pure. */

import type { Answer } from '../site/contract.ts';

/** Each reading up to here: a quarter of an hour of once a second is 900 points. */
const RAW_MAX_MS = 15 * 60_000;
/** Seconds gathered out of readings up to here; from there on the minutes that the store keeps. */
const SECONDS_MAX_MS = 6 * 3_600_000;
/** A chart is some 1,200 pixels wide; more points than that only cost. */
const POINTS_MAX = 1_500;
const MINUTE_S = 60;
/** What a person would call a round step, in seconds, from a minute on. */
const STEPS_S = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400];

/** Beyond so many raw rows the answer is cut off, and seconds are gathered instead. */
export const RAW_ROWS_MAX = 20_000;

export type Grain = { raw: true } | { stepS: number; of: 'readings' | 'readings_1m' };

export function grainOf(spanMs: number, isDense = false): Grain {
  if (spanMs <= RAW_MAX_MS && !isDense) return { raw: true };
  if (spanMs <= SECONDS_MAX_MS) {
    return { stepS: Math.max(1, Math.ceil(spanMs / 1_000 / POINTS_MAX)), of: 'readings' };
  }
  const needed = spanMs / 1_000 / POINTS_MAX;
  const stepS = STEPS_S.find(step => step >= needed) ?? STEPS_S.at(-1) ?? MINUTE_S;
  return { stepS, of: 'readings_1m' };
}

export function grainName(grain: Grain): string {
  if ('raw' in grain) return 'each reading';
  const { stepS } = grain;
  if (stepS < MINUTE_S) return `mean, lowest and highest of ${stepS} s`;
  if (stepS < 3_600) return `mean, lowest and highest of ${stepS / MINUTE_S} min`;
  return `mean, lowest and highest of ${stepS / 3_600} h`;
}

export function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** What to ask for, so that a window can move a little before it asks again: a quarter more at either side, in steps. */
export function reach(from: number, to: number): { from: number; to: number } {
  const step = Math.max(1_000, (to - from) / 4);
  return { from: (Math.floor(from / step) - 1) * step, to: (Math.ceil(to / step) + 1) * step };
}

/** Columns: series, time in µs, mean, lowest, highest. Whole steps, so that the same minute is the same point. */
export function question(
  device: string,
  series: string[],
  from: number,
  to: number,
  grain: Grain,
): string {
  const start = Math.floor(from);
  const end = Math.ceil(to);
  const of =
    `device = ${quoted(device)} and series in (${series.map(quoted).join(', ')}) ` +
    `and time >= to_timestamp_millis(${start}) and time <= to_timestamp_millis(${end})`;
  if ('raw' in grain) {
    return (
      `select series, cast(time as bigint) as at, value, value as low, value as high ` +
      `from readings where ${of} and value is not null order by series, at`
    );
  }
  const step = grain.stepS * 1_000_000;
  const [mean, low, high] =
    grain.of === 'readings'
      ? ['avg(value)', 'min(value)', 'max(value)']
      : ['sum(sum) / sum(count)', 'min(min)', 'max(max)'];
  const some = grain.of === 'readings' ? ' and value is not null' : '';
  return (
    `select series, cast(time as bigint) / ${step} * ${step} as at, ${mean} as value, ${low} as low, ${high} as high ` +
    `from ${grain.of} where ${of}${some} group by series, cast(time as bigint) / ${step} order by series, at`
  );
}

/** One series, ready to be drawn: times in s ascending, `null` where a line must not go on. */
export interface Points {
  at: number[];
  mean: (number | null)[];
  low: (number | null)[];
  high: (number | null)[];
  /** How many there are, without what marks a gap. */
  n: number;
}

export function pointsOf(answer: Answer): Map<string, Points> {
  const all = new Map<string, Points>();
  for (const [series, at, mean, low, high] of answer.rows) {
    const name = String(series);
    const points = all.get(name) ?? { at: [], mean: [], low: [], high: [], n: 0 };
    all.set(name, points);
    points.at.push(Number(at) / 1e6);
    points.mean.push(numeric(mean));
    points.low.push(numeric(low));
    points.high.push(numeric(high));
    points.n += 1;
  }
  for (const [name, points] of all) all.set(name, withGaps(points));
  return all;
}

/** `NaN` and `inf` come as text; they are no place on an axis. */
function numeric(cell: unknown): number | null {
  return typeof cell === 'number' && Number.isFinite(cell) ? cell : null;
}

/** Where nothing was said for this many times the usual pause, the line ends and begins anew. */
const GAP_PAUSES = 4;

/** A line over a time in which nothing was said would show what nobody measured. */
export function withGaps(points: Points): Points {
  const pauses = points.at.slice(1).map((at, i) => at - (points.at[i] ?? at));
  const usual = [...pauses].sort((a, b) => a - b)[Math.floor(pauses.length / 2)] ?? 0;
  if (!pauses.some(pause => pause > GAP_PAUSES * usual)) return points;
  const gapped: Points = { at: [], mean: [], low: [], high: [], n: points.n };
  points.at.forEach((at, i) => {
    const before = points.at[i - 1];
    if (before !== undefined && at - before > GAP_PAUSES * usual) {
      gapped.at.push(before + usual);
      gapped.mean.push(null);
      gapped.low.push(null);
      gapped.high.push(null);
    }
    gapped.at.push(at);
    gapped.mean.push(points.mean[i] ?? null);
    gapped.low.push(points.low[i] ?? null);
    gapped.high.push(points.high[i] ?? null);
  });
  return gapped;
}
