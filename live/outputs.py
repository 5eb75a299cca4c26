"""Outputs of live results: a window, lines of JSON, a video, in any combination, and a file's progress.

The window is SDL's (pygame), since headless OpenCV has none. `drawing` annotates the frames. Everything is closed when
the `with` is left, so that the video of a source that failed still plays.
"""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..answer_rule import FACE_TOO_SMALL, MIN_FACE_PX, UNCERTAIN
from ..data.required_packages import require_extra
from ..processor.input_errors import EngagementInputError
from .drawing import draw_states
from .engine import COLLECTING, LiveResult, to_json_line
from .film import AnnotatedVideo

MAX_SHOWN_SHARE = 0.9  # of the screen, for the window of a large picture


class LiveWindow:
    """A window that shows frames; Q, Escape or its close button closes it.

    Raises:
        EngagementInputError: there is no screen, or the extra `live` is not installed.
    """

    def __init__(self, title: str) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        require_extra("live", ("pygame-ce",), instead="pass --no-window")
        import pygame

        self._pygame = pygame
        # If it is unset, Wayland's library complains on stderr; a path that is not a folder is silently ignored.
        is_unset = "XDG_RUNTIME_DIR" not in os.environ
        os.environ.setdefault("XDG_RUNTIME_DIR", os.devnull)
        try:
            pygame.display.init()
        except pygame.error as error:
            raise _no_screen(str(error)) from error
        finally:
            if is_unset:
                del os.environ["XDG_RUNTIME_DIR"]
        # Without a screen SDL would draw off-screen.
        if pygame.display.get_driver() == "offscreen" and "SDL_VIDEODRIVER" not in os.environ:
            raise _no_screen("SDL would draw off-screen")
        self._screen_px = pygame.display.get_desktop_sizes()[0]
        self._title = title
        self._is_open = self.is_closed = False

    def show(self, frame: np.ndarray) -> None:
        """frame: (height, width, 3) uint8 RGB; keeps its proportions when the window is resized."""
        pygame, (height, width) = self._pygame, frame.shape[:2]
        if not self._is_open:
            most_width, most_height = (MAX_SHOWN_SHARE * side for side in self._screen_px)
            shrink = min(1.0, most_width / width, most_height / height)
            pygame.display.set_mode((round(width * shrink), round(height * shrink)), pygame.RESIZABLE)
            pygame.display.set_caption(f"{self._title} (Q closes)")
            self._is_open = True
        window_width, window_height = pygame.display.get_window_size()
        scale = min(window_width / width, window_height / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = pygame.image.frombuffer(np.ascontiguousarray(frame).data, (width, height), "RGB")
        surface = pygame.display.get_surface()  # a new one after resizing
        surface.fill((0, 0, 0))
        place = (window_width - size[0]) // 2, (window_height - size[1]) // 2
        surface.blit(pygame.transform.smoothscale(picture.convert(surface), size), place)
        pygame.display.flip()
        for event in pygame.event.get():
            is_key = event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE)
            self.is_closed |= is_key or event.type == pygame.QUIT

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()


def _no_screen(reason: str) -> EngagementInputError:
    return EngagementInputError(
        f"There is no screen for the window ({reason}); log in to a desktop, or pass --no-window."
    )


class LiveOutputs:
    """Pass this to `run_live`; use in a `with`.

    Args:
        title: of the window.
        window: show the annotated frames.
        json_lines: called with one line of JSON per step.
        film: an .mp4 file for the annotated frames; overwritten.
        fps: of the source and the written video.
        duration_sec: of a file; its progress is shown on a terminal if nothing else is.
        note: text on every annotated frame.
        on_close: called when the user closes the window.

    Raises:
        EngagementInputError: there is no screen, the video cannot be written, or a package is missing.
    """

    def __init__(
        self,
        title: str,
        window: bool = True,
        json_lines: Callable[[str], None] | None = None,
        film: Path | None = None,
        fps: float = 30.0,
        duration_sec: float | None = None,
        on_close: Callable[[], None] = lambda: None,
        note: str = "",
    ) -> None:
        self.num_frames, self.num_dropped = 0, 0
        self.num_labels = 0
        self._statuses: set[str] = set()
        self._note = note
        self._json_lines, self._film_path, self._on_close = json_lines, film, on_close
        self._film: AnnotatedVideo | None = None  # opened when the first frame gives the size
        self._film_size_px, self._has_scaled = (0, 0), False
        self._fps = fps
        self._closing = ExitStack()
        self._window = LiveWindow(title) if window else None
        self._progress = None
        console = Console(stderr=True)
        talks = window or (json_lines is not None and sys.stdout.isatty())
        if duration_sec and console.is_terminal and not talks:
            columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=console)
            self._task = self._progress.add_task(title, total=duration_sec)

    def __enter__(self) -> "LiveOutputs":
        if self._window is not None:
            self._closing.callback(self._window.close)
        if self._progress is not None:
            self._closing.enter_context(self._progress)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def last_words(self, source: str, reason: str, window_sec: float) -> list[str]:
        """Why the run ended, what it produced and, if there was no label, why not.

        Args:
            window_sec: a clip model's; 0 for others.
        """
        words = [f"{source}: {reason}; {self.num_frames} frames, {self.num_dropped} dropped"]
        if self.num_frames and not self.num_labels:
            words.append(f"no label: {self._why_no_label(window_sec)}")
        if self._film is not None and self._film_path is not None:
            scaled = (
                " (the picture's size changed; all frames are scaled to the first size)" if self._has_scaled else ""
            )
            words.append(f"{self._film_path}{scaled}")
        return words

    def _why_no_label(self, window_sec: float) -> str:
        if UNCERTAIN in self._statuses:
            return "every answer was uncertain"
        if any(status.startswith(COLLECTING) for status in self._statuses):
            return f"nobody was seen for a whole window of {window_sec:.1f} s; pass a shorter --window-sec"
        if FACE_TOO_SMALL in self._statuses:
            return f"every face was smaller than {MIN_FACE_PX} px"
        return "nobody's face was seen for long enough"

    def __call__(self, result: LiveResult) -> None:
        """Pass one step's result to all outputs."""
        self.num_frames, self.num_dropped = self.num_frames + 1, result.num_dropped
        self.num_labels += sum(state.label is not None for state in result.states)
        self._statuses |= {state.status for state in result.states if state.status}
        if self._json_lines is not None:
            self._json_lines(to_json_line(result.time_sec, result.states))
        if self._film_path is not None:
            self._film_frame(self._film_path, result)
        if self._window is not None:
            self._window.show(draw_states(result.frame, result.states, result.frames_per_sec, self._note))
            if self._window.is_closed:
                self._on_close()
        if self._progress is not None:
            self._progress.update(self._task, completed=result.time_sec)

    def _film_frame(self, path: Path, result: LiveResult) -> None:
        drawn = draw_states(result.frame, result.states, note=self._note)  # viewers do not need this machine's speed
        if self._film is None:
            self._film_size_px = drawn.shape[1], drawn.shape[0]
            self._film = self._closing.enter_context(AnnotatedVideo(path, self._film_size_px, self._fps))
        if drawn.shape[1::-1] != self._film_size_px:  # only with cameras; a file's frames have one size
            self._has_scaled = True
            drawn = cv2.resize(drawn, self._film_size_px, interpolation=cv2.INTER_AREA)
        self._film.write(drawn, result.time_sec)


def check_film(film: Path, source: str) -> None:
    """Check the path of an output video before a model is loaded.

    Raises:
        EngagementInputError: it is not .mp4, its folder is missing, it is a folder, or the source itself.
    """
    if film.suffix.lower() != ".mp4":
        raise EngagementInputError(f"The output video must end in .mp4, got {film}; rename it.")
    if not film.parent.is_dir():
        raise EngagementInputError(f"The folder {film.parent} for {film.name} does not exist; create it first.")
    if film.is_dir():
        raise EngagementInputError(f"{film} is a folder; name a file in it for the video.")
    if film.exists() and Path(source).exists() and film.samefile(source):
        raise EngagementInputError(f"{film} is the source video and must not be overwritten; choose another name.")
