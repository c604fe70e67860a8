import { expect, test } from '@playwright/test';
import { marksOf } from '../../src/chart/mark.ts';
import {
  grainName,
  grainOf,
  pointsOf,
  question,
  quoted,
  reach,
  withGaps,
} from '../../src/chart/question.ts';
import { at, following, panned, SPAN_MS, spanOf, zoomed } from '../../src/chart/window.ts';

const NOW = 1_795_300_000_000;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

test('a window that follows goes with the time, another stays', () => {
  const follows = following(HOUR, NOW);
  expect(at(follows, NOW + MINUTE)).toEqual({
    from: NOW + MINUTE - HOUR,
    to: NOW + MINUTE,
    follows: true,
  });
  const stays = panned(follows, -0.5, NOW);
  expect(at(stays, NOW + MINUTE)).toBe(stays);
  expect(stays).toEqual({ from: NOW - 1.5 * HOUR, to: NOW - 0.5 * HOUR, follows: false });
});

test('whoever moves forth to now follows again', () => {
  const back = panned(following(HOUR, NOW), -0.25, NOW);
  expect(panned(back, 0.1, NOW).follows).toBe(false);
  expect(panned(back, 0.9, NOW)).toEqual(following(HOUR, NOW));
});

test('zoom keeps what it points at, and its bounds', () => {
  const before = { from: NOW - 10 * HOUR, to: NOW - 8 * HOUR, follows: false };
  const nearer = zoomed(before, 0.5, 0.25, NOW);
  expect(spanOf(nearer)).toBe(HOUR);
  expect(nearer.from + 0.25 * HOUR).toBe(before.from + 0.25 * 2 * HOUR);
  expect(spanOf(zoomed(before, 1e-9, 0.5, NOW))).toBe(SPAN_MS.min);
  expect(spanOf(zoomed(before, 1e9, 0.5, NOW))).toBe(SPAN_MS.max);
  expect(zoomed(before, 1e3, 0.5, NOW).to).toBeLessThanOrEqual(NOW);
  expect(zoomed(following(HOUR, NOW), 2, 0.1, NOW)).toEqual(following(2 * HOUR, NOW));
});

test('short stretches are asked as they were said, long ones as the store keeps minutes', () => {
  const said = (ms: number, dense = false) => grainName(grainOf(ms, dense));
  expect(said(5 * MINUTE)).toBe('each reading');
  expect(said(15 * MINUTE)).toBe('each reading');
  expect(said(15 * MINUTE, true)).toBe('mean, lowest and highest of 1 s');
  expect(said(HOUR)).toBe('mean, lowest and highest of 3 s');
  expect(said(6 * HOUR)).toBe('mean, lowest and highest of 15 s');
  expect(said(24 * HOUR)).toBe('mean, lowest and highest of 1 min');
  expect(said(7 * 24 * HOUR)).toBe('mean, lowest and highest of 10 min');
  expect(said(366 * 24 * HOUR)).toBe('mean, lowest and highest of 8 h');
});

test('no grain is more points than a chart is wide', () => {
  for (let span = SPAN_MS.min; span <= SPAN_MS.max; span *= 1.37) {
    const grain = grainOf(span);
    if ('raw' in grain) continue;
    expect(span / 1_000 / grain.stepS, `${span} ms`).toBeLessThanOrEqual(1_500);
  }
});

test('a name that a device chose stays a text in SQL', () => {
  expect(quoted("o'brien'; drop table readings --")).toBe("'o''brien''; drop table readings --'");
  const sql = question("x' or '1'='1", ["a'b"], NOW - HOUR, NOW, { raw: true });
  expect(sql).toContain("device = 'x'' or ''1''=''1' and series in ('a''b')");
  expect(sql).toContain(`time >= to_timestamp_millis(${NOW - HOUR})`);
});

test('what is asked for reaches beyond what is in sight, and is the same for a while', () => {
  const asked = reach(NOW - HOUR, NOW);
  expect(asked.from).toBeLessThanOrEqual(NOW - 1.25 * HOUR);
  expect(asked.to).toBeGreaterThanOrEqual(NOW + 0.25 * HOUR);
  expect(asked.to - asked.from).toBeLessThanOrEqual(2.25 * HOUR);
  let changes = 0;
  let last = '';
  for (let later = 0; later < HOUR; later += 1_000) {
    const { from, to } = reach(NOW - HOUR + later, NOW + later);
    if (`${from} ${to}` !== last) changes += 1;
    last = `${from} ${to}`;
  }
  expect(changes).toBeLessThanOrEqual(9);
});

test('rows become points, each series by itself, and what is no number is no point', () => {
  const points = pointsOf({
    columns: [],
    rows: [
      ['a', 1_000_000, 1, 0.5, 2],
      ['a', 2_000_000, 'NaN', 'NaN', 'NaN'],
      ['b', 1_000_000, 7, 7, 7],
    ],
    truncated: false,
    took_ms: 1,
  });
  expect(points.get('a')).toEqual({
    at: [1, 2],
    mean: [1, null],
    low: [0.5, null],
    high: [2, null],
    n: 2,
  });
  expect(points.get('b')?.mean).toEqual([7]);
});

test('a line ends where nothing was said', () => {
  const at = [0, 1, 2, 3, 60, 61, 62];
  const values = at.map(() => 5);
  const gapped = withGaps({ at, mean: values, low: values, high: values, n: at.length });
  expect(gapped.at).toEqual([0, 1, 2, 3, 4, 60, 61, 62]);
  expect(gapped.mean).toEqual([5, 5, 5, 5, null, 5, 5, 5]);
  expect(gapped.n).toBe(7);
});

test('a steady line has no gaps', () => {
  const at = [0, 1, 2.1, 3, 4.4, 5];
  const points = { at, mean: at, low: at, high: at, n: at.length };
  expect(withGaps(points)).toBe(points);
});

test('marks are what ran, by product and version where they are known', () => {
  const marks = marksOf([
    {
      at_ms: 1,
      kind: 'firmware',
      sentence: 'pump-app 1.1.0 was confirmed',
      detail: { product: 'pump-app', version: '1.1.0' },
    },
    { at_ms: 2, kind: 'key', sentence: 'It enrolled' },
    { at_ms: 3, kind: 'rollout', sentence: 'It proved its part of a rollout with a long name' },
  ]);
  expect(marks.map(mark => [mark.at, mark.label])).toEqual([
    [1, 'pump-app 1.1.0'],
    [3, 'It proved its part of a rol…'],
  ]);
});
