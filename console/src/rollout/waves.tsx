import { Icon, type IconName } from '../parts/icon.tsx';
import type { Rollout } from '../site/contract.ts';
import { counted } from '../words/number.ts';
import { span } from '../words/time.ts';

type Stand = 'over' | 'open' | 'waits';

function standOf(at: number, { wave, phase }: Rollout): Stand {
  if (phase === 'completed' || at < wave) return 'over';
  if (at > wave || phase === 'planned') return 'waits';
  return 'open';
}

const WORDS: Record<Stand, [IconName, string]> = {
  over: ['ok', 'over'],
  open: ['run', 'open'],
  waits: ['wait', 'waits'],
};

/** The steps, in order: which are over, which is open, which wait. */
export function Waves({ rollout }: { rollout: Rollout }) {
  return (
    <ol className="waves">
      {rollout.order.waves.map((wave, i) => {
        const stand = standOf(i + 1, rollout);
        const [icon, word] = WORDS[stand];
        const isHere = stand === 'open';
        const most =
          wave.count_max === undefined ? '' : `, ${counted(wave.count_max, 'device')} at most`;
        return (
          // A wave is known by its place.
          <li key={i} className={stand} aria-current={isHere ? 'step' : undefined}>
            <span className="which">
              <Icon name={icon} />
              Wave {i + 1}{' '}
              <span className="faint">{isHere ? (rollout.stage ?? rollout.phase) : word}</span>
            </span>
            <strong className="num">{wave.percent} %</strong>
            <span className="faint">
              {wave.soak_ms ? `soaks ${span(wave.soak_ms)}` : 'no soak'}
              {most}
            </span>
          </li>
        );
      })}
    </ol>
  );
}
