import type { Rollout, RolloutCounts } from '../site/contract.ts';
import { count, percent } from '../words/number.ts';

/** What is known of devices, in the order of good to bad, each with its own pattern beside its colour. */
export const KNOWN: { of: (keyof RolloutCounts)[]; word: string; style: string }[] = [
  { of: ['proven', 'had'], word: 'run it', style: 'proven' },
  { of: ['issued'], word: 'may install', style: 'issued' },
  { of: ['silent'], word: 'silent', style: 'silent' },
  { of: ['failed'], word: 'failed', style: 'failed' },
  { of: ['back', 'back_silent'], word: 'told to go back', style: 'back' },
  { of: ['stuck'], word: 'stuck', style: 'stuck' },
  { of: ['went_back'], word: 'went back', style: 'went-back' },
];

export function tallies(counts: RolloutCounts): { word: string; style: string; n: number }[] {
  return KNOWN.map(({ of, word, style }) => ({
    word,
    style,
    n: of.reduce((sum, name) => sum + counts[name], 0),
  }));
}

/** The whole cohort as a bar: what is known of each, and who waits. */
export function Progress({ rollout, legend = false }: { rollout: Rollout; legend?: boolean }) {
  const { cohort, counts } = rollout;
  const known = tallies(counts);
  const waiting = Math.max(0, cohort - known.reduce((sum, one) => sum + one.n, 0));
  const said = [...known, { word: 'wait', style: 'waiting', n: waiting }].filter(one => one.n > 0);
  const sentence = said.map(one => `${count(one.n)} ${one.word}`).join(', ') || 'nobody yet';
  return (
    <div className="progress">
      <div className="progress-bar" role="img" aria-label={`Of ${count(cohort)}: ${sentence}`}>
        {said.map(one => (
          <span
            key={one.style}
            className={one.style}
            style={{ width: `${percent(one.n, cohort)}%` }}
          />
        ))}
      </div>
      {legend ? (
        <ul className="legend">
          {said.map(one => (
            <li key={one.style}>
              <span className={`swatch ${one.style}`} aria-hidden="true" />
              <strong className="num">{count(one.n)}</strong> {one.word}
            </li>
          ))}
        </ul>
      ) : (
        <span className="num faint">
          {count(known[0]?.n ?? 0)} of {count(cohort)}
        </span>
      )}
    </div>
  );
}
