import type { ReactNode } from 'react';
import { Refused } from '../site/call.ts';
import { whoMay } from '../site/rights.ts';
import { Button } from './button.tsx';
import { Icon } from './icon.tsx';

/** What can be done about a refusal, by its word or status. Questions are asked again by themselves, orders never. */
function advice(error: Refused, isQuestion: boolean): string {
  const again = isQuestion ? 'It is tried again by itself. ' : '';
  switch (error.word) {
    case 'away':
      return `${again}Whether control runs: \`plimsoll up\`, or its service, on the machine of this site.`;
    case 'queries_busy':
      return `Other questions are being answered. ${again}`;
    case 'too_slow':
      return 'Ask for a shorter time, or for fewer series.';
    case 'target_failed':
      return 'Mend what stands there or change the target, and test it again.';
    case 'no_second_person':
      return 'Make them first, under People: each role of every site, and each somebody else.';
    case 'approval_failed':
    case 'not_open':
      return 'Whoever still wants it asks for it anew.';
    case 'evidence_unavailable':
      return 'The evidence log takes nothing, so nothing that widens is done. See the runbook `evidence`.';
    case 'evidence_behind':
      return 'It is done and its proof is on the way. Do the same again, to hear that it is proven.';
  }
  if (error.status === 401) return 'Sign in.';
  if (error.status === 403) return 'Ask somebody whose role allows it.';
  if (error.status === 404) return 'It may have been removed, or the address may be mistyped.';
  if (error.status === 409)
    return 'It is otherwise by now than the page showed. Look again, then decide.';
  if (error.status === 429) return `Wait ${error.retryAfterS ?? 5} s, then try again.`;
  if (error.status >= 500)
    return `${again}What is behind it stands in the log of control.`;
  return '';
}

/** What went wrong, in words, with what to do. */
export function ProblemNote({
  error,
  again,
  children,
}: {
  error: Error;
  again?: () => void;
  children?: ReactNode;
}) {
  const refused = error instanceof Refused ? error : undefined;
  const todo = refused ? advice(refused, again !== undefined) : 'This is a fault of the console. Load the page again.';
  return (
    <div className="note bad" role="alert">
      <Icon name="warn" />
      <div>
        <strong>{begun(refused?.title ?? 'The console failed')}</strong>
        <p>{begun(refused?.detail ?? error.message)}</p>
        {todo && <p className="faint">{todo}</p>}
        {children}
        {again && (
          <p>
            <Button onClick={again}>Try again</Button>
          </p>
        )}
      </div>
    </div>
  );
}

/** Control's words begin small, as errors do in a log. */
function begun(sentence: string): string {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

export function NotYours({ scope, what }: { scope: Parameters<typeof whoMay>[0]; what: string }) {
  return (
    <div className="note info">
      <Icon name="users" />
      <div>
        <strong>{what} are not yours to see</strong>
        <p>Whoever is {whoMay(scope)} sees them.</p>
      </div>
    </div>
  );
}
