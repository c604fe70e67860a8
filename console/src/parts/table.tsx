import type { ReactNode } from 'react';
import { Scrolls } from './scrolls.tsx';

export interface Col<Row> {
  head: string;
  cell: (row: Row) => ReactNode;
  /** Numbers stand right, under each other. */
  num?: boolean;
  /** Not on a narrow screen; what counts of it is then told in the first column. */
  wide?: boolean;
  className?: string;
}

/** A table of a few hundred rows at most. Whoever has 100,000 looks at the fleet's. */
export function Table<Row>({
  caption,
  cols,
  rows,
  rowKey,
  empty,
  waiting = 0,
  marked,
}: {
  caption: string;
  cols: Col<Row>[];
  rows: Row[] | undefined;
  rowKey: (row: Row) => string | number;
  empty: ReactNode;
  /** How many rows to hold place for until they come. */
  waiting?: number;
  marked?: (row: Row) => boolean;
}) {
  if (rows?.length === 0) return <>{empty}</>;
  const classOf = (col: Col<Row>) =>
    [col.num && 'num right', col.wide && 'wide', col.className].filter(Boolean).join(' ') ||
    undefined;
  return (
    <Scrolls label={caption}>
      <table className="table">
        <caption className="unseen">{caption}</caption>
        <thead>
          <tr>
            {cols.map(col => (
              <th key={col.head} scope="col" className={classOf(col)}>
                {col.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows === undefined
            ? Array.from({ length: waiting }, (_, i) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: the rows are alike and never move.
                <tr key={i}>
                  {cols.map(col => (
                    <td key={col.head} className={classOf(col)}>
                      <span className="line" />
                    </td>
                  ))}
                </tr>
              ))
            : rows.map(row => (
                <tr key={rowKey(row)} className={marked?.(row) ? 'marked' : undefined}>
                  {cols.map(col => (
                    <td key={col.head} className={classOf(col)}>
                      {col.cell(row)}
                    </td>
                  ))}
                </tr>
              ))}
        </tbody>
      </table>
    </Scrolls>
  );
}
