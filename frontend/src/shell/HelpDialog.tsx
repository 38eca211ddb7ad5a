import { Dialog } from "../ui/Dialog";

const KEYS: { title: string; keys: [string[], string][] }[] = [
  {
    title: "Label",
    keys: [
      [["1", "…", "9"], "set the class and step on"],
      [["0"], "take the label away"],
      [["S"], "skip: leave the cell and step on"],
      [["U"], "undo your last click"],
    ],
  },
  {
    title: "Move",
    keys: [
      [["←", "→", "↑", "↓"], "from cell to cell"],
      [["Page Up", "Page Down"], "a page of the gallery"],
      [["Home", "End"], "first and last of a row; with Ctrl of all"],
      [["Enter"], "open the cell"],
      [["Esc"], "from a cell back to the gallery"],
    ],
  },
  {
    title: "Look",
    keys: [
      [["O"], "outlines on and off"],
      [["B"], "hide and show what models say"],
      [["/"], "search for cell, image or subject"],
      [["R"], "ask for the list again"],
      [["?"], "these keys"],
    ],
  },
];

export function HelpDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <div className="help">
        {KEYS.map(({ title, keys }) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {keys.map(([names, words]) => (
                <div key={words}>
                  <dt>
                    {names.map((name) => (
                      <kbd key={name}>{name}</kbd>
                    ))}
                  </dt>
                  <dd>{words}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <p className="muted">
        Every click is written to the log of the study at once, with your name. Nothing is overwritten:
        &lsquo;perikarya study apply-corrections&rsquo; makes a new study of them.
      </p>
    </Dialog>
  );
}
