import { expect, test } from '@playwright/test';
import { count, counted, measured, size, value } from '../../src/words/number.ts';
import { ago, span, utc } from '../../src/words/time.ts';

const NOW = Date.UTC(2026, 10, 21, 22, 18, 7);

test('numbers', () => {
  expect(count(100_000)).toBe('100,000');
  expect(counted(1, 'device')).toBe('1 device');
  expect(counted(0, 'device')).toBe('0 devices');
  expect([0, 1, 0.0117, 253_804.2, 1e12, 0.00001].map(value)).toEqual([
    '0',
    '1',
    '0.0117',
    '253,804.2',
    '1.000e+12',
    '1.000e-5',
  ]);
  expect(value(null)).toBe('–');
});

test('measured values have their unit, bytes in powers of 1024', () => {
  expect(measured(23.456_78, 'Cel')).toBe('23.457 °C');
  expect(measured(0.25, '/')).toBe('0.25');
  expect(measured(48_234_496, 'B')).toBe('46.0 MiB');
  expect(measured(2048, 'B/s')).toBe('2.00 KiB/s');
  expect(size(512)).toBe('512 B');
});

test('times', () => {
  expect(span(252_000)).toBe('4 min 12 s');
  expect(span(86_400_000)).toBe('1 d');
  expect(span(90_061_000)).toBe('1 d 1 h');
  expect(span(3_605_000)).toBe('1 h');
  expect(span(-5)).toBe('0 s');
  expect(ago(NOW - 500, NOW)).toBe('now');
  expect(ago(NOW - 63_000, NOW)).toBe('63 s ago');
  expect(ago(NOW - 5 * 3_600_000, NOW)).toBe('5 h ago');
  expect(ago(NOW + 600_000, NOW)).toBe('in 10 min');
  expect(utc(NOW)).toBe('2026-11-21 22:18:07 UTC');
});
