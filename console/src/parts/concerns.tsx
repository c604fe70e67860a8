import { Icon } from './icon.tsx';

/** What somebody should know before he reads on, in control’s words. */
export function Concerns({ of }: { of: string[] | undefined }) {
  if (!of?.length) return null;
  return (
    <div className="note warn">
      <Icon name="warn" />
      <ul>
        {of.map(sentence => (
          <li key={sentence}>{sentence}</li>
        ))}
      </ul>
    </div>
  );
}
