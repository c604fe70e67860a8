import { useEffect, useState } from 'react';
import { Dialog } from '../parts/dialog.tsx';
import { go, pathTo } from '../route.tsx';
import { PAGES } from './pages.ts';

/** How long `g` waits for the key behind it. */
const CHORD_MS = 1_500;

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && target.closest('input, textarea, select, dialog') !== null
  );
}

/** `/` search, `g f` fleet and so on, `?` what there is. Nothing of it while somebody types or a dialog is open. */
export function useKeys(): { help: boolean; setHelp: (shown: boolean) => void } {
  const [help, setHelp] = useState(false);
  useEffect(() => {
    let chordUntil = 0;
    const press = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (document.querySelector('dialog[open]')) return;
      if (event.timeStamp < chordUntil) {
        chordUntil = 0;
        const listed = PAGES.find(one => one.key === event.key);
        if (!listed) return;
        event.preventDefault();
        go(pathTo(listed.page));
      } else if (event.key === 'g') {
        chordUntil = event.timeStamp + CHORD_MS;
      } else if (event.key === '/') {
        event.preventDefault();
        document.querySelector<HTMLInputElement>('#search')?.select();
        document.querySelector<HTMLInputElement>('#search')?.focus();
      } else if (event.key === '?') {
        event.preventDefault();
        setHelp(true);
      }
    };
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
  return { help, setHelp };
}

export function KeysHelp({ onClose }: { onClose: () => void }) {
  const rows: [string[], string][] = [
    [['/'], 'Search devices'],
    ...PAGES.map((one): [string[], string] => [['g', one.key], one.title]),
    [['?'], 'This list'],
    [['↑', '↓', 'PgUp', 'PgDn', 'Home', 'End'], 'In the fleet: from device to device'],
    [['Enter'], 'In the fleet: open the device'],
    [['←', '→'], 'In a chart: back and forth in time'],
    [['+', '−'], 'In a chart: nearer and farther'],
    [['End'], 'In a chart: now, and follow'],
    [['Esc'], 'Close a dialog'],
  ];
  return (
    <Dialog title="Keys" onClose={onClose}>
      <table className="table keys">
        <caption className="unseen">Keys</caption>
        <thead className="unseen">
          <tr>
            <th scope="col">Key</th>
            <th scope="col">What it does</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([keys, what]) => (
            <tr key={what}>
              <td>
                {keys.map(key => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </td>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <form method="dialog" className="buttons">
        <button type="submit" className="button main">
          Close
        </button>
      </form>
    </Dialog>
  );
}
