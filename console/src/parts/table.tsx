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
  stacks = false,
}: {
  caption: string;
  cols: Col<Row>[];
  rows: Row[] | undefined;
  rowKey: (row: Row) => string | number;
  empty: ReactNode;
  /** How many rows to hold place for until they come. */
  waiting?: number;
  marked?: (row: Row) => boolean;
  /** On a narrow screen, a row becomes a card: for rows that one acts upon. */
  stacks?: boolean;
}) {
  if (rows?.length === 0) return <>{empty}</>;
  const classOf = (col: Col<Row>) =>
    [col.num && 'num right', col.wide && 'wide', col.className].filter(Boolean).join(' ') ||
    undefined;
  // A table that is laid out as cards would be no table for a screen reader, if its parts did not say what they are.
  const role = (role: string) => (stacks ? { role } : {});
  return (
    <Scrolls label={caption}>
      <table className={stacks ? 'table stacks' : 'table'} {...role('table')}>
        <caption className="unseen">{caption}</caption>
        <thead {...role('rowgroup')}>
          <tr {...role('row')}>
            {cols.map(col => (
              <th key={col.head} scope="col" {...role('columnheader')} className={classOf(col)}>
                {col.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody {...role('rowgroup')}>
          {rows === undefined
            ? Array.from({ length: waiting }, (_, i) => (
                // The rows are alike and never move.
                <tr key={i}>
                  {cols.map(col => (
                    <td key={col.head} className={classOf(col)}>
                      <span className="line" />
                    </td>
                  ))}
                </tr>
              ))
            : rows.map(row => (
                <tr
                  key={rowKey(row)}
                  className={marked?.(row) ? 'marked' : undefined}
                  {...role('row')}
                >
                  {cols.map(col => (
                    <td
                      key={col.head}
                      className={classOf(col)}
                      data-head={stacks ? col.head : undefined}
                      {...role('cell')}
                    >
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
