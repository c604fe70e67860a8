import { expect, test } from '@playwright/test';
import { worstFirst } from '../../src/alerts/order.ts';
import { pathTo, placeOf } from '../../src/place.ts';
import { beginsBroadly, faultsOf, groupsOf, lacksCanary, orderOf, usualOrder } from '../../src/rollout/order.ts';
import { saidOf } from '../../src/rollout/says.ts';
import type { Alert, NewRollout, Rollout, RolloutCommand } from '../../src/site/contract.ts';
import { whoMay } from '../../src/site/rights.ts';
import { isStale } from '../../src/site/stale.ts';

test('a change makes old what it is about, and nothing else', () => {
  const device = { kind: 'device', subject: 'device/pump-1' } as const;
  expect(isStale(['/v1/devices/pump-1'], device)).toBe(true);
  expect(isStale(['/v1/devices/pump-1/history', 'key'], device)).toBe(true);
  expect(isStale(['/v1/devices/pump-2'], device)).toBe(false);
  expect(isStale(['/v1/devices/pump-10'], device)).toBe(false);
  expect(isStale(['/v1/inventory?limit=500'], device)).toBe(true);
  expect(isStale(['/v1/rollouts'], device)).toBe(false);
  expect(isStale(['/v1/query', 'chart'], device)).toBe(false);
  const rollout = { kind: 'rollout', subject: 'rollout/pump-1.1' } as const;
  expect(isStale(['/v1/rollouts'], rollout)).toBe(true);
  expect(isStale(['/v1/rollouts/pump-1.1/signals'], rollout)).toBe(true);
  expect(isStale(['/v1/rollouts/pump-1.2'], rollout)).toBe(false);
  const approval = { kind: 'approval', subject: 'approval/7' } as const;
  expect(isStale(['/v1/approvals?state=open'], approval)).toBe(true);
  expect(isStale(['/v1/approvals', 'decided'], approval)).toBe(true);
  expect(isStale(['/v1/approvals/7'], approval)).toBe(true);
  expect(isStale(['/v1/rollouts'], approval)).toBe(false);
  // By an approval the setting changes too: then it is an event of the setting.
  const setting = { kind: 'site', subject: 'settings/two-people' } as const;
  expect(isStale(['/v1/settings/two-people'], setting)).toBe(true);
});

test('of many at once, all that could be meant is old', () => {
  const seen = { kind: 'seen', subject: 'site' } as const;
  expect(isStale(['/v1/devices/pump-1'], seen)).toBe(true);
  expect(isStale(['/v1/inventory?limit=500'], seen)).toBe(true);
  expect(isStale(['/v1/rollouts'], seen)).toBe(false);
});

test('too much was missed: everything is old', () => {
  for (const path of ['/v1/devices/pump-1', '/v1/query', '/v1/users']) {
    expect(isStale([path], { kind: 'reset', subject: '' })).toBe(true);
  }
});

test('an address says where one is, and back', () => {
  const path = pathTo('devices', 'a/b c', { series: 'x,y', empty: '' });
  expect(path).toBe('/console/devices/a%2Fb%20c?series=x%2Cy');
  const place = placeOf('/console/devices/a%2Fb%20c', '?series=x%2Cy');
  expect([place.page, place.name, place.query.get('series')]).toEqual(['devices', 'a/b c', 'x,y']);
  expect(placeOf('/', '').page).toBe('fleet');
  expect(placeOf('/console/', '').page).toBe('fleet');
  expect(placeOf('/console/devices/%E0%A4%A', '').name).toBe('%E0%A4%A');
});

test('who may not is told who may', () => {
  expect(whoMay('fleet.widen')).toBe('a security officer');
  expect(whoMay('rollouts.write')).toBe('a releaser');
  expect(whoMay('fleet.narrow')).toBe('an operator, a security officer or an administrator');
});

const ROLLOUT: Rollout = {
  id: 'pump-1.1',
  order: { product: 'pump-app', version: '1.1.0', waves: [] },
  sha256: '',
  created_at_ms: 0,
  revision: 1,
  phase: 'running',
  wave: 1,
  waves: 2,
  cohort: 10,
  members: 5,
  counts: {
    issued: 2,
    silent: 0,
    proven: 3,
    had: 0,
    failed: 0,
    back: 0,
    back_silent: 0,
    stuck: 0,
    went_back: 0,
  },
};

test('what stops is everybody’s who may narrow, what lets run is a releaser’s', () => {
  const scope = (command: RolloutCommand) => saidOf(command, ROLLOUT).scope;
  for (const command of ['pause', 'halt', 'abort'] as const)
    expect(scope(command)).toBe('rollouts.narrow');
  for (const command of ['start', 'resume', 'revert'] as const)
    expect(scope(command)).toBe('rollouts.write');
  expect(saidOf('revert', ROLLOUT).says[0]).toContain('5 devices');
});

test('an order is what its form says', () => {
  const form = usualOrder('pump-app', '1.1.0');
  expect(faultsOf(form)).toEqual([]);
  expect(lacksCanary(form)).toBe(false);
  const order = orderOf({
    ...form,
    zones: ' hall, yard ,',
    signals: [{ name: 'memory', sql: 'select 1', bound: 'at_most', limit: '5e7' }],
  });
  expect(order.cohort).toEqual({ zones: ['hall', 'yard'] });
  expect(order.waves[0]).toEqual({ percent: 5, count_max: 1, soak_ms: 600_000 });
  expect(order.signals).toEqual([{ name: 'memory', sql: 'select 1', at_most: 50_000_000 }]);
  expect(order).not.toHaveProperty('id');
});

test('an order that cannot be is not sent', () => {
  const form = usualOrder('', '');
  form.waves = [
    { percent: '50', countMax: '', soakMinutes: '' },
    { percent: '10', countMax: '', soakMinutes: '' },
  ];
  form.signals = [{ name: 'x', sql: '', bound: 'at_least', limit: '' }];
  expect(faultsOf(form)).toHaveLength(3);
});

test('all at once is no canary', () => {
  const form = usualOrder('pump-app', '1.1.0');
  form.waves = [{ percent: '100', countMax: '', soakMinutes: '' }];
  expect(lacksCanary(form)).toBe(true);
  form.waves = [{ percent: '100', countMax: '1', soakMinutes: '' }];
  expect(lacksCanary(form)).toBe(false);
  // As control judges it: more than half.
  form.waves = [{ percent: '51', countMax: '', soakMinutes: '' }];
  expect(lacksCanary(form)).toBe(true);
  form.waves = [{ percent: '50', countMax: '', soakMinutes: '' }];
  expect(lacksCanary(form)).toBe(false);
  const begins = (waves: NewRollout['waves']) => beginsBroadly({ ...ROLLOUT.order, waves });
  expect(begins([{ percent: 100 }])).toBe(true);
  expect(begins([{ percent: 100, count_max: 1 }, { percent: 100 }])).toBe(false);
});

test('the worst alert stands first', () => {
  const alert = (id: number, state: Alert['state'], priority: Alert['priority']) =>
    ({ id, state, priority, since_ms: id }) as Alert;
  const sorted = worstFirst([
    alert(1, 'resolved', 'critical'),
    alert(2, 'firing', 'notice'),
    alert(3, 'acknowledged', 'critical'),
    alert(4, 'firing', 'critical'),
    alert(5, 'firing', 'critical'),
    alert(6, 'resolved', 'notice'),
  ]);
  expect(sorted.map(one => one.id)).toEqual([5, 4, 2, 3, 6, 1]);
});

test('a rollout goes to the groups that are chosen', () => {
  const form = { ...usualOrder('pump-app', '1.1.0'), groups: ['pilot'], zones: 'hall, ' };
  expect(orderOf(form).cohort).toEqual({ groups: ['pilot'], zones: ['hall'] });
  expect(orderOf({ ...form, groups: [], zones: '' }).cohort).toEqual({});
  expect(groupsOf({ production: 9, north: 1, south: 3 }, ['east'])).toEqual([
    ...['development', 'pilot', 'production', 'east', 'south', 'north'],
  ]);
});
