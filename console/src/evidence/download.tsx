import { type ReactNode, useState } from 'react';
import { Button } from '../parts/button.tsx';
import { ProblemNote } from '../parts/problem.tsx';
import { bytes } from '../site/call.ts';
import { save } from './save.ts';

/** A button that saves an answer as it came, and says what became of it. */
export function Download({
  path,
  name,
  main = false,
  children,
}: {
  path: string;
  name: string;
  main?: boolean;
  children: ReactNode;
}) {
  const [state, setState] = useState<{ busy?: boolean; error?: Error; saved?: string }>({});
  const download = async () => {
    setState({ busy: true });
    try {
      save(await bytes(path), name);
      setState({ saved: name });
    } catch (error) {
      setState({ error: error as Error });
    }
  };
  return (
    <>
      <div className="buttons start">
        <Button
          kind={main ? 'main' : 'plain'}
          icon="download"
          busy={state.busy ?? false}
          onClick={download}
        >
          {children}
        </Button>
        <span role="status">{state.saved ? `Saved as ${state.saved}` : ''}</span>
      </div>
      {state.error && <ProblemNote error={state.error} />}
    </>
  );
}
