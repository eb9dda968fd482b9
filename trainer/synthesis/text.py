"""What the rendered lines say: prose from open texts, and the figures, codes, capitals and tables of real papers.

A tab in a drawn text stands for a wide gap on the line (a table's column, a right-aligned total); the truth has one
space there.
"""

from __future__ import annotations

import logging
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import ASCII, DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadInput
from ocr_model.text import normalise_line

Rng = np.random.Generator

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December", "Jan.", "Feb.", "Mar.", "Apr.", "Aug.", "Sept.", "Oct.", "Nov.", "Dec.", "Jan", "Feb", "Mar", "Apr",
    "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "janvier", "février", "mars", "avril", "mai", "juin",
    "juillet", "août", "septembre", "octobre", "novembre", "décembre", "Januar", "Februar", "März", "April", "Mai",
    "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember",
)  # fmt: skip
CURRENCIES = ("$", "£", "€", "Fr. ", "RM ", "USD ", "RM", "¥", "$ ", "S$", "Rs. ", "DM ")
ITEMS = (
    "TOTAL", "SUBTOTAL", "TAX", "CASH", "CHANGE", "QTY", "ITEM", "PRICE", "AMOUNT", "DISCOUNT", "ROUNDING",
    "INVOICE", "RECEIPT", "NO.", "DATE", "TIME", "CASHIER", "TABLE", "GST", "VAT", "NET", "GROSS", "BALANCE", "DUE",
    "PAID", "REF", "TEL", "FAX", "REG", "ID", "UNIT", "PCS", "KG", "EA", "MEMBER", "CARD", "VISA", "THANK", "YOU",
    "PLEASE", "COME", "AGAIN", "GOODS", "SOLD", "ARE", "NOT", "RETURNABLE", "EXCHANGE", "INCL.", "EXCL.", "SALES",
    "SUMMARY", "CODE", "DESCRIPTION", "STORE", "BRANCH", "COMPANY", "LTD", "SDN", "BHD", "DEPOSIT", "SERVICE",
    "CHARGE", "ORDER", "TRANS", "BILL", "POINTS", "OPEN", "TERMINAL",
)  # fmt: skip
LABELS = (
    "Total", "Subtotal", "Page", "Date", "No.", "Ref.", "Tel.", "Fax", "Table", "Figure", "Fig.", "Note",
    "Case No.", "Case", "Docket", "Exhibit", "Document", "Filed", "Section", "Sec.", "Art.", "Vol.", "Chapter",
    "Appendix", "Item", "Subject", "To", "From", "cc", "Re", "Dear Sir", "Enclosure", "Copy", "Received", "Signed",
    "File", "Your ref.", "Source", "Revenue", "Net income", "Assets", "Year ended", "Amount", "Rate", "Average",
    "Number of", "Invoice", "Zimmer", "Betreff", "Az.", "Herrn", "An den", "Monsieur", "Objet", "Réf.", "Paris, le",
    "Wien, am", "Budapest, den",
)  # fmt: skip
STREETS = (
    "Street", "St.", "Avenue", "Ave.", "Road", "Rd.", "Lane", "Square", "Place", "straße", "gasse", "Platz",
    "rue de",
)  # fmt: skip
LEGAL = (
    "UNITED STATES DISTRICT COURT", "Plaintiff,", "Defendant.", "v.", "Case No. {n}", "ORDER", "MOTION", "IN RE:",
    "Respectfully submitted,", "COUNT {n}", "Attorney for", "Pursuant to", "§ {n}", "{n} U.S.C. § {n}",
    "Fed. R. Civ. P. {n}", "Id. at {n}.", "See {n} F.3d {n}", "(emphasis added)", "PAGE {n} OF {n}",
    "Page {n} of {n}", "Document {n}", "Filed {d}",
)  # fmt: skip
ABBREVIATIONS = (
    "e.g.", "i.e.", "viz.", "&c.", "etc.", "inst.", "ult.", "prox.", "cf.", "ibid.", "op. cit.", "vol.", "pp.", "p.",
    "ff.", "No.", "Nos.", "Messrs.", "Esq.", "Bros.", "Co.", "Ltd.", "dept.", "approx.", "a/c", "c/o", "P.S.", "N.B.",
    "A.D.", "B.C.", "a.m.", "p.m.", "z.B.", "d.h.", "usw.", "bzw.", "Nr.", "Dr.", "geb.", "M.", "Mme", "p. ex.",
)  # fmt: skip


def _letters(rng: Rng, pool: str, low: int, high: int) -> str:
    """`low` to `high` characters of the pool."""
    return "".join([pool[i] for i in rng.integers(len(pool), size=int(rng.integers(low, high + 1)))])


def _choice(rng: Rng, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def date(rng: Rng) -> str:
    """A date as papers write it: 12 March 1938, March 12, 1938, 12.3.38, 12/03/1938, 1938-03-12."""
    day, month = int(rng.integers(1, 32)), int(rng.integers(1, 13))
    year = int(rng.integers(1780, 2030))
    name = _choice(rng, MONTHS)
    forms = (
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{day}. {name} {year}",
        f"{day:02d}.{month:02d}.{year}",
        f"{day}.{month}.{year % 100:02d}",
        f"{day:02d}/{month:02d}/{year}",
        f"{month}/{day}/{year % 100:02d}",
        f"{year}-{month:02d}-{day:02d}",
        f"{name} {day}th",
        f"{name} {year}",
        f"{year}",
        f"{year}-{(year + 1) % 100:02d}",
    )
    return _choice(rng, forms)


def amount(rng: Rng) -> str:
    """A number as papers write it, with or without currency, grouping, decimals, percent, sign."""
    value = 10 ** float(rng.uniform(0, 7))
    decimals = int(rng.choice([0, 0, 1, 2, 2, 2, 3]))
    number = f"{value:,.{decimals}f}" if rng.random() < 0.7 else f"{value:.{decimals}f}"
    if rng.random() < 0.12:
        number = number.replace(",", "'" if rng.random() < 0.3 else " ").replace(".", ",")
    kind = rng.random()
    if kind < 0.35:
        number = _choice(rng, CURRENCIES) + number
    elif kind < 0.47:
        number += _choice(rng, ("%", " %", " €", "/-", " fr.", " kg", "¢", " ft.", " m", '"', "°"))
    elif kind < 0.55:
        number = _choice(rng, ("-", "+", "(", "–", "~", "±", "x", "#")) + number
        if number[0] == "(":
            number += ")"
    elif kind < 0.58:
        number = f"{int(rng.integers(1, 99))} {_choice(rng, '½¼¾⅓⅔⅛')}"
    return number


def code(rng: Rng) -> str:
    """A reference: A-1234/56, GD301.758-St.B., 12:34:56, (03) 1234-5678, 2:20-cv-00123, a@b.com, [12]."""

    def d(low: int, high: int) -> str:
        return _letters(rng, string.digits, low, high)

    def upper(low: int, high: int) -> str:
        return _letters(rng, string.ascii_uppercase, low, high)

    def lower(low: int, high: int) -> str:
        return _letters(rng, string.ascii_lowercase, low, high)

    forms: tuple[Callable[[], str], ...] = (
        lambda: f"{upper(1, 3)}-{d(1, 5)}/{d(2, 2)}",
        lambda: f"{d(1, 4)}{upper(1, 2)}{d(0, 4)}",
        lambda: (
            f"{d(1, 2)}:{d(2, 2)}"
            + ("" if rng.random() < 0.5 else f":{d(2, 2)}")
            + _choice(rng, ("", " AM", " PM", " a.m.", " Uhr"))
        ),
        lambda: f"({d(2, 4)}) {d(3, 4)}-{d(3, 4)}",
        lambda: f"+{d(1, 2)} {d(2, 3)} {d(3, 4)} {d(2, 4)}",
        lambda: f"{d(1, 3)}-{d(3, 8)}",
        lambda: f"{d(1, 1)}:{d(2, 2)}-cv-{d(5, 5)}-{upper(2, 3)}",
        lambda: f"{lower(3, 9)}@{lower(3, 9)}.{_choice(rng, ('com', 'org', 'net', 'de', 'fr'))}",
        lambda: (
            f"{_choice(rng, ('www.', 'https://', 'http://www.'))}{lower(3, 12)}{_choice(rng, ('.com', '.org', '.gov'))}"
            + (f"/{lower(2, 8)}" if rng.random() < 0.4 else "")
        ),
        lambda: f"[{d(1, 3)}]",
        lambda: f"({lower(1, 1) if rng.random() < 0.6 else d(1, 3)})",
        lambda: f"{d(6, 13)}",
        lambda: f"{upper(2, 4)} {d(2, 6)}",
        lambda: f"{d(1, 2)}.{d(1, 2)}" + (f".{d(1, 2)}" if rng.random() < 0.4 else ""),
        lambda: f"§ {d(1, 4)}" + (f"({lower(1, 1)})" if rng.random() < 0.5 else ""),
        lambda: f"{upper(1, 2)}.{upper(1, 2)}." + (f" {d(1, 4)}" if rng.random() < 0.5 else ""),
        lambda: f"{d(1, 3)}{_choice(rng, ('*', '#', '/', '+', '_', '=', '&', '@'))}{d(1, 4)}",
    )
    return forms[int(rng.integers(len(forms)))]()


def abbreviation(rng: Rng) -> str:
    """e.g., viz., vol. 3, z.B."""
    text = _choice(rng, ABBREVIATIONS)
    return f"{text} {int(rng.integers(1, 400))}" if rng.random() < 0.3 else text


def leaders(rng: Rng) -> str:
    """A run of dots or dashes, as in a table of contents or a form."""
    unit = _choice(rng, (".", ".", ". ", "_", "-", "*", "=", "—"))
    return (unit * int(rng.integers(3, 24))).strip()


KINDS = ("prose", "mixed", "heading", "table_row", "receipt", "address", "numbered", "scatter")
_KINDS_UP_TO = np.cumsum((0.44, 0.12, 0.08, 0.08, 0.1, 0.06, 0.07, 0.05))
_TRIES = 200  # at a line within the alphabet


@dataclass(frozen=True)
class DrawnText:
    """A line's text and where it comes from: its kind, one of `KINDS`, and the files whose words are in it."""

    text: str
    kind: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextSource:
    """Paragraphs to draw lines from, with their cumulative shares (the last is 1). There is at least one.

    Attributes:
        files: names of the files; file_of: [paragraphs] int, which of them each paragraph is from. Both may be empty.
        alphabet: what lines stay within.
        unreadable: files that were left out, with the reason.
        unknown: characters outside of the alphabet, in paragraphs that were left out for them.
        left_out: how many paragraphs those are.
    """

    paragraphs: tuple[str, ...]
    cumulative: npt.NDArray[np.float64]
    files: tuple[str, ...] = ()
    file_of: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    alphabet: Alphabet = DEFAULT_ALPHABET
    unreadable: dict[str, str] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    left_out: int = 0

    @classmethod
    def load(cls, folder: Path | None, alphabet: Alphabet = DEFAULT_ALPHABET) -> TextSource:
        """All `.txt` files of a folder, a paragraph a line; the language is the part of the name before the first `_`.

        English has half of the draws, the other languages share the rest. Without a folder the word list of this
        module is the text, which is enough to try the renderer, not to train.

        Raises:
            BadInput: the folder is missing or holds no usable text.
        """
        if folder is None:
            words = [w for w in ITEMS + LABELS + MONTHS if alphabet.covers(w)]
            return cls((" ".join(words) or alphabet.characters.strip(),), np.ones(1), alphabet=alphabet)
        if not folder.is_dir():
            raise BadInput(f"no text folder {folder}", "name a folder of .txt files")
        unreadable: dict[str, str] = {}
        unknown: Counter[str] = Counter()
        by_language: dict[str, list[tuple[str, int]]] = {}
        files: list[str] = []
        left_out = 0
        for path in sorted(folder.glob("*.txt")):
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                unreadable[path.name] = str(error)
                logging.warning("the text %s cannot be read and is left out: %s", path, error)
                continue
            found = [p for p in map(normalise_line, text.splitlines()) if len(p) >= 2]
            kept = [p for p in found if alphabet.covers(p)]
            if len(kept) < len(found):
                unknown.update(alphabet.unknown(found))
                left_out += len(found) - len(kept)
            by_language.setdefault(path.name.split("_", 1)[0], []).extend((p, len(files)) for p in kept)
            files.append(path.name)
        if not any(by_language.values()):
            told = (
                f"; {len(unreadable)} files cannot be read: {', '.join(sorted(unreadable)[:3])}" if unreadable else ""
            )
            outside = "".join(c for c, _ in unknown.most_common(20))
            told += f"; outside of the alphabet: {outside}" if outside else ""
            raise BadInput(f"no usable text in {folder}{told}", "put UTF-8 .txt files there, a paragraph a line")
        share = {language: 1.0 for language, found in by_language.items() if found}
        if "en" in share and len(share) > 1:
            share = {language: 0.62 if language == "en" else 0.38 / (len(share) - 1) for language in share}
        paragraphs, weights, file_of = [], [], []
        for language in share:
            size = sum(len(p) for p, _ in by_language[language])
            paragraphs += [p for p, _ in by_language[language]]
            file_of += [number for _, number in by_language[language]]
            weights += [share[language] * len(p) / size for p, _ in by_language[language]]
        return cls(
            tuple(paragraphs),
            np.cumsum(weights) / np.sum(weights),
            tuple(files),
            np.array(file_of, np.int32),
            alphabet,
            unreadable,
            unknown,
            left_out,
        )

    def _pick(self, rng: Rng) -> int:
        """The number of a paragraph, of longer ones more often."""
        return min(int(self.cumulative.searchsorted(rng.random())), len(self.paragraphs) - 1)

    def paragraph(self, rng: Rng) -> str:
        """A whole paragraph, longer ones more often."""
        return self.paragraphs[self._pick(rng)]

    def words(self, rng: Rng, count: int) -> list[str]:
        """Up to `count` consecutive words of one paragraph."""
        words = self.paragraph(rng).split()
        start = int(rng.integers(max(1, len(words) - count + 1)))
        return words[start : start + count]

    def prose(self, rng: Rng, max_chars: int) -> str:
        """Consecutive words, now and then with a word broken at the end."""
        text = ""
        for word in self.words(rng, 24):
            if len(text) + 1 + len(word) > max_chars:
                if len(word) > 5 and rng.random() < 0.5:
                    text += f" {word[: int(rng.integers(2, len(word) - 2))]}-"
                break
            text = f"{text} {word}" if text else word
        return text or self.paragraph(rng)[:max_chars]

    def heading(self, rng: Rng, max_chars: int) -> str:
        """Capitals or title case, also with spaced letters."""
        text = " ".join(self.words(rng, int(rng.integers(1, 7))))[:max_chars]
        kind = rng.random()
        if kind < 0.6:
            text = text.upper()
        elif kind < 0.9:
            text = text.title()
        if rng.random() < 0.12:
            text = " ".join(text.replace(" ", "\t"))
        return text

    def table_row(self, rng: Rng, max_chars: int) -> str:
        """Cells with wide gaps: a label and figures."""
        cells = [] if rng.random() < 0.25 else [self.label(rng)]
        maker = (amount, amount, code, date)[int(rng.integers(4))]
        for _ in range(int(rng.integers(1, 7))):
            cells.append(maker(rng) if rng.random() < 0.9 else _choice(rng, ("-", "—", "n/a", "*", "0", "nil", "..")))
        while len(cells) > 1 and len("\t".join(cells)) > max_chars:
            cells.pop()
        return "\t".join(cells)

    def label(self, rng: Rng) -> str:
        kind = rng.random()
        if kind < 0.3:
            return _choice(rng, LABELS) + _choice(rng, ("", ":", ".", " :"))
        text = " ".join(self.words(rng, int(rng.integers(1, 5))))
        if kind < 0.6:
            return text.title()
        return text.upper() if kind < 0.75 else text

    def receipt(self, rng: Rng, max_chars: int) -> str:
        """A till's line: capitals, quantities, prices."""
        words = [_choice(rng, ITEMS) for _ in range(int(rng.integers(1, 5)))]
        if rng.random() < 0.55:
            words = [w.upper() for w in self.words(rng, int(rng.integers(1, 5)))]
        text = " ".join(words)
        kind = rng.random()
        if kind < 0.35:
            text = f"{text}\t{amount(rng)}"
        elif kind < 0.5:
            text = f"{text} {_choice(rng, (':', '-', '#', '@', 'x', '/', '('))} {code(rng)}"
        elif kind < 0.62:
            times = _choice(rng, ("x", "X", "@", "PCS", "*", ""))
            text = f"{int(rng.integers(1, 100))} {times} {amount(rng)}\t{amount(rng)}"
        elif kind < 0.72:
            text = f"{code(rng)}\t{date(rng)} {code(rng)}"
        elif kind < 0.8:
            text = f"{text}: {date(rng)}"
        return text[:max_chars] if rng.random() < 0.85 else text[:max_chars].title()

    def address(self, rng: Rng, max_chars: int) -> str:
        """Names with initials, streets, places, opening and closing lines of letters."""
        name = " ".join(w.strip(string.punctuation).title() or "A" for w in self.words(rng, int(rng.integers(1, 3))))
        initials = " ".join(f"{c}." for c in _letters(rng, string.ascii_uppercase, 1, 2))
        forms = (
            f"{_choice(rng, ('Mr.', 'Mrs.', 'Dr.', 'M.', 'Herrn', 'Prof.', 'Messrs.', 'Hon.'))} {initials} {name}",
            f"{int(rng.integers(1, 2000))} {name} {_choice(rng, STREETS)}",
            f"{name}, {_letters(rng, string.digits, 4, 6)}",
            f"{name}, {initials} {_letters(rng, string.digits, 5, 5)}",
            f"{name}, {date(rng)}",
            f"{_choice(rng, LABELS)}: {name}",
            f"{initials} {name}, {_choice(rng, ('Esq.', 'Jr.', 'Ph.D.', 'President', 'Secretary', 'M.D.'))}",
        )
        return _choice(rng, forms)[:max_chars]

    def mixed(self, rng: Rng, max_chars: int) -> str:
        """Prose with dates, amounts, references and brackets in it."""
        words = self.prose(rng, max_chars).split()
        for _ in range(int(rng.integers(1, 4))):
            piece = (date, amount, code, abbreviation)[int(rng.integers(4))](rng)
            if rng.random() < 0.25:
                pair = _choice(rng, ("()", "[]", "“”", '""', "‘’", "''", "«»", "„“", "<>", "{}"))
                piece = f"{pair[0]}{piece}{pair[1]}"
            if rng.random() < 0.3:
                piece += _choice(rng, (",", ".", ";", ":", "?", "!"))
            words.insert(int(rng.integers(len(words) + 1)), piece)
        return " ".join(words)[:max_chars].strip()

    def numbered(self, rng: Rng, max_chars: int) -> str:
        """List items, contents with leaders, headers with a page number, footnotes, filings."""
        kind = rng.random()
        if kind < 0.3:
            mark = _choice(rng, ("{}.", "{})", "({})", "{}", "[{}]", "•", "-", "*", "†", "—")).format(
                int(rng.integers(1, 400))
            )
            return f"{mark} {self.prose(rng, max_chars - 6)}"[:max_chars]
        if kind < 0.5:
            return f"{self.label(rng)[: max_chars // 2]} {leaders(rng)} {int(rng.integers(1, 900))}"[:max_chars]
        if kind < 0.7:
            title = self.heading(rng, max_chars - 8)
            number = str(int(rng.integers(1, 900)))
            return f"{number}\t{title}" if rng.random() < 0.5 else f"{title}\t{number}"
        text = _choice(rng, LEGAL)
        while "{n}" in text:
            text = text.replace("{n}", _letters(rng, string.digits, 1, 4), 1)
        return text.replace("{d}", date(rng))[:max_chars]

    def scatter(self, rng: Rng, max_chars: int, must: str = "") -> str:
        """Characters without sense, rare ones as often as common ones: what guarantees that the alphabet is covered.

        Args:
            must: characters that are in it, whatever else is drawn.
        """
        rare = bool(must) or rng.random() < 0.6
        pool = self.alphabet.characters if rare else self._common
        picked = _letters(rng, pool, 1, min(17, max_chars - 1))
        words = self.words(rng, int(rng.integers(0, 4)))
        words.insert(int(rng.integers(len(words) + 1)), must + picked)
        if rare and not must and rng.random() < 0.7:  # accents where they stand in words
            base = list(self.prose(rng, max_chars))
            accents = self._uncommon
            for i in range(len(base)):
                if base[i].isalpha() and rng.random() < 0.25:
                    base[i] = accents[int(rng.integers(len(accents)))]
            return "".join(base)
        text = " ".join(words)[:max_chars]
        return text if must in text else must + picked

    @property
    def _common(self) -> str:
        return ASCII if self.alphabet.characters.startswith(ASCII) else self.alphabet.characters

    @property
    def _uncommon(self) -> str:
        return self.alphabet.characters[len(ASCII) :] if self._common == ASCII else self.alphabet.characters

    def line(self, rng: Rng, max_chars: int = 80) -> str:
        """A line of any kind, NFC, within the alphabet; tabs stand for wide gaps.

        Returns:
            1 to about `max_chars` characters, no space at either end.
        """
        return self.drawn(rng, max_chars).text

    def drawn(self, rng: Rng, max_chars: int = 80, must: str = "") -> DrawnText:
        """A line as `line` gives it, with its kind and the files that its words are from.

        Args:
            must: characters of the alphabet that are in it; it is then without sense.
        """
        traced = _Traced(**{**self.__dict__, "picked": []})
        for _ in range(_TRIES):
            kind = "scatter" if must else KINDS[int(_KINDS_UP_TO.searchsorted(rng.random() * _KINDS_UP_TO[-1]))]
            text = traced.scatter(rng, max_chars, must) if must else getattr(traced, kind)(rng, max_chars)
            text = _in_cells(text if must else self._restyled(rng, text))
            if text and self.alphabet.covers(text.replace("\t", " ")) and all(c in text for c in must.strip()):
                return DrawnText(text, kind, traced.taken())
        text = "".join(c for c in traced.paragraph(rng) if self.alphabet.covers(c))[:max_chars].strip()
        return DrawnText(text or self.alphabet.characters.strip()[:1], "prose", traced.taken())

    @staticmethod
    def _restyled(rng: Rng, text: str) -> str:
        """Typewriter quotes and dashes for half of the lines, capitals for a few."""
        if rng.random() < 0.45:
            for old, new in (
                ("’", "'"),
                ("‘", "'"),
                ("“", '"'),
                ("”", '"'),
                ("—", _choice(rng, ("--", "-", " - "))),
                ("–", "-"),
                ("…", "..."),
            ):
                text = text.replace(old, new)
        if rng.random() < 0.05:
            text = text.upper()
        return text


@dataclass(frozen=True)
class _Traced(TextSource):
    """A source that remembers which paragraphs were picked."""

    picked: list[int] = field(default_factory=list)

    def _pick(self, rng: Rng) -> int:
        number = super()._pick(rng)
        self.picked.append(number)
        return number

    def taken(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.files[self.file_of[n]] for n in self.picked)) if self.files else ()


def _in_cells(text: str) -> str:
    cells = [normalise_line(cell) for cell in text.split("\t")]
    return "\t".join(cell for cell in cells if cell)


def with_long_s(text: str) -> str:
    """The text as blackletter sets it: ſ for every s that is not the last letter of its word.

    >>> with_long_s("Das Wasser ist süß")
    'Das Waſſer iſt ſüß'
    """
    return "".join(
        "ſ" if c == "s" and i + 1 < len(text) and text[i + 1].isalpha() and text[i - 1 : i] != "'" else c
        for i, c in enumerate(text)
    )
