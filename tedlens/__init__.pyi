from . import analysis as analysis
from . import datasets as datasets
from . import models as models
from . import plots as plots
from . import widgets as widgets
from .clip import Clip as Clip
from .clip import read_clip as read_clip
from .errors import TedlensError as TedlensError
from .media import write_masks as write_masks
from .media import write_video as write_video
from .metrics import evaluate as evaluate
from .metrics import summarize as summarize
from .models import load_image_model as load_image_model
from .models import load_video_model as load_video_model
from .models import register_adapter as register_adapter
from .probing import probe as probe
from .store import load as load
from .store import save as save
from .sweeping import open_kept as open_kept
from .sweeping import open_sweep as open_sweep
from .sweeping import sweep as sweep
from .ted import fuse as fuse
from .ted import propagate as propagate
from .ted import propagate_fused as propagate_fused
from .tracking import track as track

__version__: str
