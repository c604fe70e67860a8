import { expect, test } from '@playwright/test';
import { PAGE_LINES, Shelf } from '../../src/fleet/shelf.ts';
import type { DeviceLine, Inventory } from '../../src/site/contract.ts';

const line = (n: number): DeviceLine => ({
  id: `pump-${String(n).padStart(6, '0')}`,
  role: 'device',
  site: 'site',
  zone: 'hall',
  group: 'production',
  standing: 'enrolled',
});

/** What control answers: the lines behind `after`, sorted by id. */
function inventory(all: DeviceLine[], after: string | undefined): Inventory {
  const first = after === undefined ? 0 : all.findIndex(one => one.id > after);
  const devices = first < 0 ? [] : all.slice(first, first + PAGE_LINES);
  const last = devices.at(-1);
  const isMore = last !== undefined && last.id !== all.at(-1)?.id;
  return { devices, total: all.length, ...(isMore && last ? { next: last.id } : {}) };
}

/** Asks as long as something in sight is missing; says how often. */
function fill(shelf: Shelf, all: DeviceLine[], first: number, last: number): number {
  let asked = 0;
  for (let wanted = shelf.next({ first, last }); wanted; wanted = shelf.next({ first, last })) {
    shelf.take(wanted.page, inventory(all, wanted.after));
    asked += 1;
    expect(asked).toBeLessThan(1_000);
  }
  return asked;
}

const ALL = Array.from({ length: 100_000 }, (_, n) => line(n));

test('the first page is asked for once, and the next only when it comes in sight', () => {
  const shelf = new Shelf();
  expect(fill(shelf, ALL, 0, 30)).toBe(1);
  expect(shelf.total).toBe(100_000);
  expect(fill(shelf, ALL, PAGE_LINES - 10, PAGE_LINES + 20)).toBe(1);
  expect(shelf.line(PAGE_LINES)?.id).toBe(line(PAGE_LINES).id);
  expect(shelf.line(3 * PAGE_LINES)).toBeUndefined();
});

test('whoever jumps to the end sees the end', () => {
  const shelf = new Shelf();
  fill(shelf, ALL, 0, 30);
  expect(fill(shelf, ALL, 99_960, 99_999)).toBe(100_000 / PAGE_LINES - 1);
  expect(shelf.line(99_999)?.id).toBe(line(99_999).id);
  expect(shelf.line(100_000)).toBeUndefined();
});

test('what has aged is shown, and asked for again only where one looks', () => {
  const shelf = new Shelf();
  fill(shelf, ALL, 0, 5 * PAGE_LINES);
  shelf.age();
  expect(shelf.line(2 * PAGE_LINES)?.id).toBe(line(2 * PAGE_LINES).id);
  expect(fill(shelf, ALL, 2 * PAGE_LINES, 2 * PAGE_LINES + 30)).toBe(1);
});

test('a device that comes between moves all behind it, and none is shown twice', () => {
  const shelf = new Shelf();
  fill(shelf, ALL, 0, 2 * PAGE_LINES);
  const more = [...ALL.slice(0, 10), { ...line(9), id: 'pump-000009-b' }, ...ALL.slice(10)];
  shelf.age();
  fill(shelf, more, 0, 2 * PAGE_LINES);
  const shown = Array.from({ length: 2 * PAGE_LINES }, (_, at) => shelf.line(at)?.id);
  expect(shown).toEqual(more.slice(0, 2 * PAGE_LINES).map(one => one.id));
});

test('a fleet that shrinks has no line behind its end', () => {
  const shelf = new Shelf();
  fill(shelf, ALL, 0, 3 * PAGE_LINES);
  const few = ALL.slice(0, 40);
  shelf.age();
  fill(shelf, few, 0, 30);
  expect(shelf.total).toBe(40);
  expect(shelf.line(40)).toBeUndefined();
  expect(fill(shelf, few, 0, 39)).toBe(0);
});

test('nothing at all is an answer too', () => {
  const shelf = new Shelf();
  expect(fill(shelf, [], 0, 30)).toBe(1);
  expect(shelf.total).toBe(0);
});
