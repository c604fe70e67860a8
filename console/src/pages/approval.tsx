import { useState } from 'react';
import { Act } from '../approvals/act.tsx';
import { Decide, type Verb, YourWord } from '../approvals/decide.tsx';
import { personOf, whoSeconds } from '../approvals/second.ts';
import { StateBadge } from '../approvals/state.tsx';
import { SubjectLink } from '../evidence/event-table.tsx';
import { Asked, Lines } from '../parts/asked.tsx';
import { Facts, Page, Panel } from '../parts/page.tsx';
import { Link, pathTo } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import type { Approval } from '../site/contract.ts';
import { roleName } from '../site/rights.ts';
import { Ago, Until, When } from '../words/when.tsx';

/** One thing that somebody asked for: what it is, who has to say yes, what is done then. */
export function ApprovalPage({ id }: { id: string }) {
  const approval = useAsk<Approval>(`/v1/approvals/${encodeURIComponent(id)}`);
  const [verb, setVerb] = useState<Verb>();
  return (
    <Page title={`Approval ${id}`} lead={<Link to={pathTo('approvals')}>All approvals</Link>}>
      <Asked
        of={approval}
        waiting={
          <Panel title="Asked for">
            <Lines n={6} />
          </Panel>
        }
      >
        {one => (
          <>
            <Panel title="Asked for" aside={<StateBadge state={one.state} />}>
              <div className="says">
                <p>
                  <strong>{one.sentence}.</strong>
                </p>
              </div>
              <Facts of={factsOf(one)} />
            </Panel>
            {one.act !== undefined && (
              <Panel title="What happens if it is approved">
                <Act of={one.act} />
              </Panel>
            )}
            {one.state === 'open' && (
              <Panel title="Your word">
                <YourWord of={one} say={setVerb} />
              </Panel>
            )}
            {verb && <Decide approval={one} verb={verb} onClose={() => setVerb(undefined)} />}
          </>
        )}
      </Asked>
    </Page>
  );
}

function factsOf(one: Approval): Parameters<typeof Facts>[0]['of'] {
  return [
    ['About', <SubjectLink key="about" subject={one.subject} />],
    ['Asked by', `${personOf(one.asked_by)}, as ${roleName(one.asked_as)}`],
    ['Asked', <Ago key="asked" ms={one.asked_at_ms} />],
    ...(one.state === 'open'
      ? ([
          ['Ends', <Until key="ends" ms={one.until_ms} />],
          ['Says yes', whoSeconds(one)],
        ] as Parameters<typeof Facts>[0]['of'])
      : ([
          ['Decided by', one.decided_by ? personOf(one.decided_by) : 'nobody'],
          ['Decided', <When key="decided" ms={one.decided_at_ms} />],
          ...(one.reason ? [['Why', one.reason]] : []),
        ] as Parameters<typeof Facts>[0]['of'])),
  ];
}
