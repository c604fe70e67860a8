import { expect, test } from '@playwright/test';
import { outcomeOf } from '../../src/approvals/outcome.ts';
import {
  asksForFewer,
  hindranceOf,
  mayRefuse,
  personOf,
  secondsNow,
  settled,
} from '../../src/approvals/second.ts';
import type { Approval, Grant, Me, Scope } from '../../src/site/contract.ts';
import { holds } from '../../src/site/rights.ts';

const me = (name: string, ...grants: Grant[]): Me => ({
  actor: `user/${name}`,
  user: name,
  site: 'here',
  grants,
  scopes: (['approvals.write'] as Scope[]).filter(scope =>
    grants.some(grant => holds(grant.role, scope)),
  ),
});

const RELEASE: Approval = {
  id: '7',
  what: 'quarantine_release',
  subject: 'device/pump-1',
  sentence: 'Let pump-1 back from quarantine',
  asked_by: 'user/anna',
  asked_as: 'security_officer',
  seconds: ['operator', 'administrator'],
  sites: ['north', 'south'],
  asked_at_ms: 0,
  until_ms: 1,
  state: 'open',
};

test('nobody is his own second, by whatever he asked; it can be withdrawn', () => {
  const anna = me('anna', { role: 'security_officer' }, { role: 'operator' });
  for (const asked_by of ['user/anna', 'token/anna/ci']) {
    const own = { ...RELEASE, asked_by };
    expect(hindranceOf(anna, own)).toContain('You asked for it');
    expect(mayRefuse(anna, own)).toBe(true);
  }
  expect(hindranceOf(anna, { ...RELEASE, asked_by: 'user/annabel' })).toBeUndefined();
});

test('a second person has one of the roles at all of it', () => {
  const can = (...grants: Grant[]) => hindranceOf(me('otto', ...grants), RELEASE) === undefined;
  expect(can({ role: 'operator' })).toBe(true);
  expect(can({ role: 'operator', site: 'north' })).toBe(false);
  expect(can({ role: 'operator', site: 'north' }, { role: 'operator', site: 'south' })).toBe(true);
  expect(
    can({ role: 'operator', site: 'north' }, { role: 'administrator', site: 'south' }),
  ).toBe(false);
  expect(can({ role: 'security_officer' }, { role: 'releaser' })).toBe(false);
  const { sites: _, ...everywhere } = RELEASE;
  const north = me('otto', { role: 'operator', site: 'north' });
  expect(hindranceOf(north, everywhere)).toBe('It takes an operator or an administrator at every site.');
});

test('a token of the site is nobody’s second', () => {
  const { user: _, ...token } = me('site', { role: 'operator' });
  expect(hindranceOf(token, RELEASE)).toContain('Only a person');
});

test('one person is enough for a no, if he reaches it', () => {
  expect(mayRefuse(me('ben', { role: 'releaser' }), RELEASE)).toBe(true);
  expect(mayRefuse(me('ben', { role: 'releaser', site: 'north' }), RELEASE)).toBe(false);
  expect(mayRefuse(me('vera', { role: 'viewer' }), RELEASE)).toBe(false);
  // Nor does who asked and has lost every role that could.
  expect(mayRefuse(me('anna', { role: 'viewer' }), RELEASE)).toBe(false);
});

test('of those that are open, as many wait for somebody as he can say yes to', () => {
  const open = [RELEASE, { ...RELEASE, asked_by: 'user/otto' }, { ...RELEASE, seconds: [] }];
  expect(secondsNow(me('otto', { role: 'operator' }), open)).toBe(1);
});

test('who asked is called by name', () => {
  expect(personOf('user/ben')).toBe('ben');
  expect(personOf('token/ben/ci')).toBe('a token of ben (ci)');
});

test('where anything takes two people, rights do', () => {
  expect(settled([], ['quarantine_release'])).toEqual(['quarantine_release', 'grant_roles']);
  expect(settled(['quarantine_release', 'grant_roles'], ['quarantine_release'])).toEqual([]);
  expect(settled(['grant_roles'], ['grant_roles', 'emergency_rollout'])).toEqual([
    'grant_roles',
    'emergency_rollout',
  ]);
});

test('to ask for fewer takes two, for more or for the same it does not', () => {
  expect(asksForFewer(['grant_roles'], [])).toBe(true);
  expect(asksForFewer(['grant_roles', 'emergency_rollout'], ['grant_roles', 'quarantine_release'])).toBe(true);
  expect(asksForFewer(['grant_roles'], ['grant_roles', 'emergency_rollout'])).toBe(false);
  expect(asksForFewer([], [])).toBe(false);
});

test('what is done says for whom and where, and leaves nothing out', () => {
  const grants = [{ role: 'releaser' }, { role: 'operator', site: 'north' }];
  expect(outcomeOf({ act: 'grant', name: 'cleo', grants })).toEqual([
    'cleo is releaser at every site, operator at north from then on, and nothing else.',
  ]);
  const two = outcomeOf({ act: 'two_people', needed_for: [] });
  expect(two).toEqual(['One person is enough for everything from then on.']);
});
