/** What is done when an approval is approved: the act that control keeps, in sentences. Pure. */

import type { Grant, Widening } from '../site/contract.ts';
import { roleName } from '../site/rights.ts';

export const WIDENING_TELLS: Record<Widening, string> = {
  emergency_rollout: 'A rollout without a canary',
  quarantine_release: 'Letting a quarantined device back',
  grant_roles: 'Letting people do more',
};

/** `crates/control/src/approvals.rs`, `Act`. */
type Act =
  | { act: 'release_device'; device: string }
  | { act: 'create_user' | 'grant'; name: string; grants: Grant[] }
  | { act: 'set_password' | 'enable_user'; name: string }
  | { act: 'assign_site'; id: string; zones: string[] }
  | { act: 'two_people'; needed_for: Widening[] }
  | { act: 'create_rollout'; order: { product: string; version: string; waves: unknown[] } }
  | { act: 'start_rollout'; rollout: string };

/** None: it is an act that this console does not know, and its JSON has to tell. */
export function outcomeOf(act: unknown): string[] | undefined {
  const of = act as Act;
  switch (of.act) {
    case 'release_device':
      return [`The gateways let ${of.device} back within seconds, and what it says counts again.`];
    case 'create_user':
      return [
        `User ${of.name} can sign in, by a password that who asks knows.`,
        `${of.name} is ${rolesOf(of.grants)}.`,
      ];
    case 'grant':
      return [`${of.name} is ${rolesOf(of.grants)} from then on, and nothing else.`];
    case 'set_password':
      return [
        `${of.name} signs in by another password from then on, which who asks knows.`,
        `Every session of ${of.name} ends.`,
      ];
    case 'enable_user':
      return [`${of.name} can sign in again, with the roles and the password from before.`];
    case 'assign_site':
      return [
        `Site ${of.id} has exactly these zones: ${of.zones.join(', ') || 'none'}.`,
        'Whoever has a role at the site has it for them.',
      ];
    case 'two_people':
      return of.needed_for.length > 0
        ? [`Two people are asked for this only: ${of.needed_for.map(lower).join('; ')}.`]
        : ['One person is enough for everything from then on.'];
    case 'create_rollout':
      return [
        `The rollout is made and begins: ${of.order.product} ${of.order.version} goes to its first wave at once.`,
        'Its whole order stands below.',
      ];
    case 'start_rollout':
      return [`Rollout ${of.rollout} begins: its first wave opens at once.`];
  }
  return undefined;
}

function lower(widening: Widening): string {
  const tells = WIDENING_TELLS[widening];
  return tells.charAt(0).toLowerCase() + tells.slice(1);
}

function rolesOf(grants: Grant[]): string {
  const names = grants.map(grant => `${roleName(grant.role)} at ${grant.site ?? 'every site'}`);
  return names.join(', ') || 'without any role';
}
