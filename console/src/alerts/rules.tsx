import { Asked, Empty } from '../parts/asked.tsx';
import { Badge, PriorityBadge } from '../parts/badge.tsx';
import { type Col, Table } from '../parts/table.tsx';
import { useAsk } from '../site/ask.ts';
import type { Rule, RuleState, Rules } from '../site/contract.ts';
import { roleName } from '../site/rights.ts';
import { Ago } from '../words/when.tsx';

/** What is looked at, how often, and whether it can be. */
export function RuleTable() {
  const rules = useAsk<Rules>('/v1/alert-rules');
  const stateOf = (rule: Rule): RuleState | undefined => rules.data?.states[rule.id];
  const cols: Col<Rule>[] = [
    { head: 'Priority', cell: one => <PriorityBadge priority={one.priority} /> },
    {
      head: 'Rule',
      cell: one => (
        <>
          <strong>{one.id}</strong>
          <div className="faint">{one.sentence}</div>
        </>
      ),
    },
    { head: 'Owner', cell: one => (one.owner ? roleName(one.owner) : '–'), wide: true },
    { head: 'State', cell: one => <State rule={one} state={stateOf(one)} /> },
    { head: 'Looked at', cell: one => <Ago ms={stateOf(one)?.looked_at_ms} />, wide: true },
    { head: 'Open', cell: one => stateOf(one)?.open ?? 0, num: true, wide: true },
  ];
  const table = (rows: Rule[] | undefined) => (
    <Table
      stacks
      caption="Rules"
      cols={cols}
      rows={rows}
      rowKey={one => one.id}
      waiting={8}
      empty={<Empty title="Nothing is looked at" />}
    />
  );
  return (
    <Asked of={rules} waiting={table(undefined)}>
      {answer => table(answer.rules)}
    </Asked>
  );
}

function State({ rule, state }: { rule: Rule; state: RuleState | undefined }) {
  if (!rule.enabled) {
    return (
      <Badge tone="calm" icon="minus">
        off
      </Badge>
    );
  }
  if (state?.trouble) {
    return (
      <>
        <Badge tone="warn" icon="warn">
          cannot be looked at
        </Badge>
        <div className="faint">{state.trouble}</div>
      </>
    );
  }
  return (
    <Badge tone={state?.open ? 'bad' : 'ok'} icon={state?.open ? 'stop' : 'ok'}>
      {state?.open ? 'firing' : 'quiet'}
    </Badge>
  );
}
