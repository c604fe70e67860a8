import type { UseQueryResult } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Ago } from '../words/when.tsx';
import { ProblemNote } from './problem.tsx';

/**
 * An answer in each of its states. While it is awaited, `waiting` holds its place at its final size. When it cannot be
 * had anew, what was heard last stays, and says so.
 */
export function Asked<T>({
  of,
  waiting,
  children,
}: {
  of: UseQueryResult<T, Error>;
  waiting: ReactNode;
  children: (answer: T) => ReactNode;
}) {
  if (of.data === undefined) {
    if (of.error) return <ProblemNote error={of.error} again={() => of.refetch()} />;
    return (
      <div aria-busy="true">
        <span className="unseen" role="status">
          Loading
        </span>
        {waiting}
      </div>
    );
  }
  return (
    <>
      {of.error && !of.isFetching && (
        <ProblemNote error={of.error} again={() => of.refetch()}>
          <p>
            What follows was heard <Ago ms={of.dataUpdatedAt} />.
          </p>
        </ProblemNote>
      )}
      {children(of.data)}
    </>
  );
}

/** A place of some lines, while they are awaited. */
export function Lines({ n, tall = false }: { n: number; tall?: boolean }) {
  return (
    <div className={tall ? 'lines tall' : 'lines'} aria-hidden="true">
      {Array.from({ length: n }, (_, i) => (
        // The lines are alike and never move.
        <span key={i} className="line" />
      ))}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <strong>{title}</strong>
      {children && <div>{children}</div>}
    </div>
  );
}
