/** What an order came to that takes a second person: it was asked for, and nothing is done. */

import { Link, pathTo } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import type { Approval, TwoPeople, Widening } from '../site/contract.ts';
import { paths } from '../users/paths.ts';
import { Until } from '../words/when.tsx';
import { whoSeconds } from './second.ts';

export const ASKED = 'Asked: a second person decides';

export function Waits({ of }: { of: Approval }) {
  return (
    <>
      <p>{of.sentence}.</p>
      <p>
        Nothing is done yet. It takes {whoSeconds(of)}, and ends <Until ms={of.until_ms} /> if nobody
        decides.
      </p>
      <p>
        <Link to={pathTo('approvals', of.id)}>To the approval</Link>
      </p>
    </>
  );
}

/** Said before something is ordered that takes two people here. Where one is enough, nothing. */
export function TakesTwo({ what, when = 'This' }: { what: Widening; when?: string }) {
  const settings = useAsk<TwoPeople>(paths.twoPeople);
  if (!settings.data?.needed_for.includes(what)) return null;
  return <strong>{when} takes two people: it is asked for, and a second person decides.</strong>;
}
