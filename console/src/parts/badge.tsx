import type { Priority, Standing } from '../site/contract.ts';
import { Icon, type IconName } from './icon.tsx';

export type Tone = 'ok' | 'warn' | 'bad' | 'info' | 'calm';

/** A state in a word, a drawing and a colour: whoever misses one has the others. */
export function Badge({ tone, icon, children }: { tone: Tone; icon: IconName; children: string }) {
  return (
    <span className={`badge ${tone}`}>
      <Icon name={icon} />
      {children}
    </span>
  );
}

const STANDINGS: Record<Standing, [Tone, IconName]> = {
  listed: ['calm', 'wait'],
  enrolled: ['ok', 'ok'],
  quarantined: ['warn', 'stop'],
  revoked: ['bad', 'bad'],
  decommissioned: ['calm', 'minus'],
};

export function StandingBadge({ standing }: { standing: Standing }) {
  const [tone, icon] = STANDINGS[standing] ?? ['calm', 'dot'];
  return (
    <Badge tone={tone} icon={icon}>
      {standing}
    </Badge>
  );
}

const PHASES: Record<string, [Tone, IconName]> = {
  planned: ['calm', 'wait'],
  running: ['info', 'run'],
  paused: ['warn', 'pause'],
  halted: ['bad', 'stop'],
  reverting: ['warn', 'back'],
  reverted: ['calm', 'back'],
  completed: ['ok', 'ok'],
  aborted: ['calm', 'bad'],
};

export function PhaseBadge({ phase }: { phase: string }) {
  const [tone, icon] = PHASES[phase] ?? ['calm', 'dot'];
  return (
    <Badge tone={tone} icon={icon}>
      {phase}
    </Badge>
  );
}

const PRIORITY: Record<Priority, [Tone, IconName]> = {
  critical: ['bad', 'stop'],
  warning: ['warn', 'warn'],
  notice: ['info', 'dot'],
};

export function PriorityBadge({ priority }: { priority: Priority }) {
  const [tone, icon] = PRIORITY[priority] ?? ['calm', 'dot'];
  return (
    <Badge tone={tone} icon={icon}>
      {priority}
    </Badge>
  );
}
