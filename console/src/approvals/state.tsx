import { Badge, type Tone } from '../parts/badge.tsx';
import type { IconName } from '../parts/icon.tsx';
import type { Approval } from '../site/contract.ts';

const STATES: Record<Approval['state'], [Tone, IconName]> = {
  open: ['info', 'wait'],
  approved: ['ok', 'ok'],
  refused: ['calm', 'bad'],
  failed: ['bad', 'warn'],
  expired: ['calm', 'wait'],
};

export function StateBadge({ state }: { state: Approval['state'] }) {
  const [tone, icon] = STATES[state];
  return (
    <Badge tone={tone} icon={icon}>
      {state}
    </Badge>
  );
}
