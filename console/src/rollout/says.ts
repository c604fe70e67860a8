/** What commands do, in the words of whoever has to decide. Pure. */

import type { Rollout, RolloutCommand, Scope } from '../site/contract.ts';
import { counted } from '../words/number.ts';

export interface Said {
  verb: string;
  scope: Scope;
  danger: boolean;
  says: string[];
}

export function saidOf(command: RolloutCommand, rollout: Rollout): Said {
  const { order, counts, cohort } = rollout;
  const release = `${order.product} ${order.version}`;
  const having = counts.proven + counts.issued + counts.silent;
  switch (command) {
    case 'start':
      return {
        verb: 'Start',
        scope: 'rollouts.write',
        danger: false,
        says: [
          `The first of ${counted(rollout.waves, 'wave')} opens now. The cohort is ${counted(cohort, 'device')}.`,
          'Each later wave opens by itself once the one before is proven and its gate has passed.',
        ],
      };
    case 'pause':
      return {
        verb: 'Pause',
        scope: 'rollouts.narrow',
        danger: false,
        says: [
          'Nobody gets leave to install any more. Whoever has it goes on.',
          'It can be resumed where it stands.',
        ],
      };
    case 'resume':
      return {
        verb: 'Resume',
        scope: 'rollouts.write',
        danger: false,
        says: [
          `It goes on in wave ${rollout.wave} of ${rollout.waves}: devices get leave to install again.`,
        ],
      };
    case 'halt':
      return {
        verb: 'Halt',
        scope: 'rollouts.narrow',
        danger: true,
        says: [
          'Nobody gets leave any more, orders are taken back at the next check-in, and leases tell devices not to arm it.',
          'It is not resumed after that. It is taken back (revert), or ended where it stands (abort).',
        ],
      };
    case 'revert':
      return {
        verb: 'Take back',
        scope: 'rollouts.write',
        danger: true,
        says: [
          `${counted(having, 'device')} that ${having === 1 ? 'has' : 'may have'} ${release} ${having === 1 ? 'is' : 'are'} told to go back to what ran there before, ` +
            'and each proves that it did.',
          'This cannot be resumed forward: who wants the release again makes another rollout.',
        ],
      };
    case 'abort':
      return {
        verb: 'Abort',
        scope: 'rollouts.narrow',
        danger: true,
        says: [
          'It ends where it stands, for good: nobody gets leave any more, and nobody is told to go back.',
          `${counted(counts.proven, 'device')} that ${counts.proven === 1 ? 'runs' : 'run'} ${release} ${counts.proven === 1 ? 'keeps' : 'keep'} it.`,
        ],
      };
  }
}

/** Where it stands, when control has nothing more particular to say. */
export function usually(rollout: Rollout): string {
  const { phase, stage, wave, waves } = rollout;
  const of = `wave ${wave} of ${waves}`;
  switch (phase) {
    case 'planned':
      return 'It has not begun.';
    case 'running':
      if (stage === 'opening') return `It opens ${of}.`;
      if (stage === 'soaking')
        return `Devices of ${of} have their outcome, and time to show what it does to them.`;
      if (stage === 'asking') return `The gate behind ${of} is being asked.`;
      return `Devices of ${of} install it and prove that they run it.`;
    case 'paused':
      return `Somebody paused it in ${of}.`;
    case 'halted':
      return `It was halted in ${of}. Nobody gets leave any more.`;
    case 'reverting':
      return 'Devices are told to go back to what they ran before.';
    case 'reverted':
      return 'Every device that could has gone back to what it ran before.';
    case 'completed':
      return 'Every wave is proven.';
    case 'aborted':
      return 'It was ended where it stood.';
  }
  return '';
}
