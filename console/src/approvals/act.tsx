import { Asked, Lines } from '../parts/asked.tsx';
import { useAsk } from '../site/ask.ts';
import type { Approval } from '../site/contract.ts';
import { outcomeOf } from './outcome.ts';

/** What is done if it is approved, while it is open. */
export function Outcome({ of: id }: { of: string }) {
  const approval = useAsk<Approval>(`/v1/approvals/${encodeURIComponent(id)}`);
  return (
    <Asked of={approval} waiting={<Lines n={2} />}>
      {({ act }) => act !== undefined && <Act of={act} />}
    </Asked>
  );
}

export function Act({ of }: { of: unknown }) {
  const says = outcomeOf(of);
  return (
    <>
      {says?.map(sentence => (
        <p key={sentence}>{sentence}</p>
      ))}
      <details open={says === undefined}>
        <summary>All of it, as JSON</summary>
        {/* What scrolls must be reachable by keyboard (WCAG 2.1.1). */}
        <pre className="json" tabIndex={0}>
          {JSON.stringify(of, null, 2)}
        </pre>
      </details>
    </>
  );
}
