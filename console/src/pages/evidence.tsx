import { type FormEvent, useEffect, useState } from 'react';
import { Download } from '../evidence/download.tsx';
import { EventTable } from '../evidence/event-table.tsx';
import { Asked, Lines } from '../parts/asked.tsx';
import { Button, CopyButton } from '../parts/button.tsx';
import { Field } from '../parts/field.tsx';
import { Page, Panel } from '../parts/page.tsx';
import { usePlace, useQueryText } from '../route.tsx';
import { useAsk } from '../site/ask.ts';
import { withQuery } from '../site/call.ts';
import type { Events } from '../site/contract.ts';
import { count, counted } from '../words/number.ts';

const PAGE = 100;

/** What was done, by whom, and a proof of it that needs nobody's word. */
export function EvidencePage() {
  const { query } = usePlace();
  const set = useQueryText();
  const subject = query.get('subject') ?? '';
  const event = query.get('event');
  const marked = event === null ? undefined : Number(event);
  const [text, setText] = useState(subject);
  useEffect(() => setText(subject), [subject]);
  // How long the log is: its newest events are what one comes for.
  const head = useAsk<Events>('/v1/events?limit=1', { enabled: !subject });
  const length = head.data?.covered;

  const look = (submit: FormEvent) => {
    submit.preventDefault();
    set({ subject: text.trim(), event: undefined });
  };
  return (
    <Page
      title="Evidence"
      lead={
        length === undefined || subject
          ? 'What was done, by whom, with its proof.'
          : `What was done, by whom, with its proof: ${counted(length, 'event')} in the log.`
      }
    >
      <div className="halves evidence-tools">
        <Panel title="Of one subject">
          <form onSubmit={look} className="line-form">
            <Field
              label="Subject"
              placeholder="device/pump-1, rollout/pump-1.1, site"
              spellCheck={false}
              autoCapitalize="none"
              value={text}
              onChange={setText}
            />
            <Button type="submit">Show</Button>
            {subject && (
              <Button kind="quiet" onClick={() => set({ subject: undefined, event: undefined })}>
                All
              </Button>
            )}
          </form>
        </Panel>
        <Proof subject={subject} />
      </div>
      <Panel title={subject ? `Events of ${subject}` : 'Events'}>
        {subject ? (
          <EventTable subject={subject} limit={PAGE} marked={marked} />
        ) : (
          <Asked of={head} waiting={<Lines n={10} tall />}>
            {({ covered }) => <Newest length={covered} marked={marked} />}
          </Asked>
        )}
      </Panel>
    </Page>
  );
}

/** The log is read in its order; one begins near its end, and goes back page by page. */
function Newest({ length, marked }: { length: number; marked: number | undefined }) {
  const [first, setFirst] = useState(() =>
    Math.max(0, (marked === undefined ? length : marked + PAGE / 2) - PAGE),
  );
  return (
    <>
      {first > 0 && (
        <p className="more">
          <Button onClick={() => setFirst(Math.max(0, first - PAGE))}>
            The {count(Math.min(PAGE, first))} before
          </Button>
        </p>
      )}
      <EventTable subject="" limit={PAGE} from={first} marked={marked} />
    </>
  );
}

/** A file that proves itself, offline, with nothing but the log's public key. */
function Proof({ subject }: { subject: string }) {
  const name = `${(subject || 'log').replaceAll('/', '-')}-evidence.json`;
  const command = `plimsoll evidence verify ${name} --key evidence.pub --print`;
  return (
    <Panel title={subject ? `Proof of ${subject}` : 'Proof of everything'}>
      <p>
        A file with each event, its proof and the signed head of the log. Whoever has the log’s
        public key (<code>site/evidence.pub</code>) checks it offline:
      </p>
      <p className="command">
        <code>{command}</code>
        <CopyButton text={command} what="the command" />
      </p>
      <Download main path={withQuery('/v1/evidence/export', { subject })} name={name}>
        Download the proof
      </Download>
    </Panel>
  );
}
