/** Who may be the second person, as control judges it (`crates/control/src/approvals/decide.rs`). Pure. */

import type { Approval, Me, UserRole, Widening } from '../site/contract.ts';
import { holds, may, roleName } from '../site/rights.ts';

/** Why the caller's yes would not count; none: it does. */
export function hindranceOf(me: Me, one: Approval): string | undefined {
  if (isOwn(me, one)) return 'You asked for it: somebody else says yes.';
  if (!me.user) return 'Only a person who has signed in says yes: a program is nobody’s second.';
  const role = one.seconds.find(role => hasAt(me, one, grant => grant === role));
  return role ? undefined : `It takes ${whoSeconds(one)}.`;
}

/** One person is enough for a no: whoever reaches it, and who asked. */
export function mayRefuse(me: Me, one: Approval): boolean {
  if (!may(me, 'approvals.write')) return false;
  return isOwn(me, one) || reaches(me, one);
}

/** By whichever way: a token of mine asked in my name. */
export function isOwn(me: Me, one: Approval): boolean {
  return me.user !== undefined && one.asked_by.split('/')[1] === me.user;
}

/** How many wait for the caller. */
export function secondsNow(me: Me, open: Approval[]): number {
  return open.filter(one => hindranceOf(me, one) === undefined).length;
}

/** `an operator or an administrator at north`. */
export function whoSeconds(one: Approval): string {
  const roles = one.seconds.map(role => `${/^[aeio]/.test(role) ? 'an' : 'a'} ${roleName(role)}`);
  return `${roles.join(' or ')} at ${one.sites ? one.sites.join(' and ') : 'every site'}`;
}

/** `ben`; `a token of ben (ci)`. */
export function personOf(actor: string): string {
  const [kind, user = actor, ...token] = actor.split('/');
  return kind === 'token' && token.length > 0 ? `a token of ${user} (${token.join('/')})` : user;
}

/** One role at all of it: half of it as this and half as that is not a second person. */
function hasAt(me: Me, one: Approval, fits: (role: UserRole) => boolean): boolean {
  const at = (site: string | undefined) =>
    me.grants.some(
      grant => fits(grant.role) && (grant.site === undefined || grant.site === site),
    );
  return one.sites ? one.sites.length > 0 && one.sites.every(at) : at(undefined);
}

function reaches(me: Me, one: Approval): boolean {
  return hasAt(me, one, role => holds(role, 'approvals.write'));
}

/** Whoever makes users alone makes the second person himself: where anything takes two, rights do. */
export function settled(before: Widening[], chosen: Widening[]): Widening[] {
  if (chosen.length === 0 || chosen.includes('grant_roles')) return chosen;
  return before.includes('grant_roles') ? [] : [...chosen, 'grant_roles'];
}

/** Whether what is chosen asks for two people for less than now: that takes two itself. */
export function asksForFewer(now: Widening[], chosen: Widening[]): boolean {
  return now.some(one => !chosen.includes(one));
}
