import { useState } from "react";
import { formatRoute } from "../state/route";
import { useReview, type View } from "../state/store";
import { Button } from "../ui/Button";
import { useShortcuts } from "../ui/useShortcuts";
import { Counts } from "./Counts";
import { HelpDialog } from "./HelpDialog";
import { MoreDialog } from "./MoreDialog";

const TABS: { view: View; title: string }[] = [
  { view: "gallery", title: "Gallery" },
  { view: "map", title: "Map" },
  { view: "reading", title: "Second reading" },
];

/** What every view keeps in sight: whose cells these are, the way to the other views, counts and progress. */
export function Header() {
  const name = useReview((s) => s.study?.name ?? "");
  const source = useReview((s) => s.study?.source ?? "");
  const hasModels = useReview((s) => (s.study?.models.length ?? 0) > 0);
  const outlined = useReview((s) => s.outlined);
  const blind = useReview((s) => s.blind);
  const { setOutlined, setBlind } = useReview.getState();
  const [shown, setShown] = useState<"help" | "more" | null>(null);
  const close = () => {
    setShown(null);
  };
  const help = () => {
    setShown("help");
  };
  useShortcuts({ "?": help });

  return (
    <header className="header">
      <div className="header-title">
        <h1>{name}</h1>
        <span className="muted header-source">{source}</span>
      </div>
      <Tabs />
      <div className="header-tools">
        <Button
          className="wide-only"
          pressed={outlined}
          shortcut="O"
          onClick={() => {
            setOutlined(!outlined);
          }}
        >
          Outline
        </Button>
        {hasModels && (
          <Button
            className="wide-only"
            pressed={blind}
            shortcut="B"
            title="Hide all that models say"
            onClick={() => {
              setBlind(!blind);
            }}
          >
            Blind
          </Button>
        )}
        <Button
          onClick={() => {
            setShown("more");
          }}
        >
          More
        </Button>
        <Button className="wide-only" shortcut="?" onClick={help}>
          Keys
        </Button>
      </div>
      <Counts />
      {shown === "help" && <HelpDialog onClose={close} />}
      {shown === "more" && <MoreDialog onClose={close} onHelp={help} />}
    </header>
  );
}

function Tabs() {
  const view = useReview((s) => s.view);
  const query = useReview((s) => s.query);
  const { show } = useReview.getState();
  return (
    <nav className="tabs" aria-label="Views">
      {TABS.map((tab) => (
        <a
          key={tab.view}
          className="tab"
          href={formatRoute({ view: tab.view, row: null, query })}
          aria-current={(view === "cell" ? "gallery" : view) === tab.view ? "page" : undefined}
          onClick={(event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab or window
            event.preventDefault();
            show(tab.view);
          }}
        >
          {tab.title}
        </a>
      ))}
    </nav>
  );
}
