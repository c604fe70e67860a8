import { QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { App } from './app.tsx';
import { Fault } from './parts/fault.tsx';
import { showTheme } from './shell/theme.ts';
import { client } from './site/ask.ts';
import './style/base.css';
import './style/parts.css';
import './style/shell.css';
import './style/pages.css';
import './style/print.css';

showTheme();
const root = document.getElementById('console');
if (!root) throw new Error('index.html has no element `console`');
createRoot(root).render(
  <Fault>
    <QueryClientProvider client={client}>
      <App />
    </QueryClientProvider>
  </Fault>,
);
